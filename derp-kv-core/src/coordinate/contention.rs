//! Who works: what `guarded_get` and `idempotent_execute` have in common.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::coordinate::claim::{Claim, claim, too_slow};
use crate::coordinate::cooldown;
use crate::coordinate::entry::{Entry, Reading};
use crate::coordinate::keys::lock_key;
use crate::coordinate::lease::{Lease, Terms, check_runtime};
use crate::coordinate::nesting::{is_computing, is_nested};
use crate::coordinate::work::{Beside, Lead};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::span::{waiting, waits};
use crate::operation::Operation;
use crate::singleflight::aboard::Aboard;
use crate::singleflight::flights::{Purpose, Seat};
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;
use crate::singleflight::state::{Call, Sighting};
use crate::store::kv_store::KvStore;

/// One caller that wants the result behind a key, found or worked out by exactly one.
pub(crate) struct Contention<'a, S> {
    pub(crate) store: &'a S,
    pub(crate) key: &'a [u8],
    pub(crate) reading: Reading<'a>,
    pub(crate) operation: Operation,
    pub(crate) purpose: Purpose,
    /// What tells this request from others with the same key.
    pub(crate) tag: Option<&'a str>,
    pub(crate) lease: Terms,
    pub(crate) retry_delay: Duration,
    pub(crate) patience: Patience,
    /// Whether the result is looked for under the lock, before the caller is told to work. Otherwise it
    /// does so itself.
    pub(crate) looks: bool,
}

/// What a caller does while somebody else is at work for long.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// After `lock_ttl` it works as well, and after each further one another caller does.
    ThenBeside {
        /// Where the store fails it works at once.
        although_the_store_fails: bool,
    },
    /// It gives up at this moment.
    Until(Instant),
}

/// What is the caller's to do, after all waiting.
pub(crate) enum Turn {
    /// To return the result, which is in the store.
    Found(Entry),
    /// To return the result, which another caller in this process had.
    Landed(Entry),
    /// To work, under the lock's lease.
    Lead(Lead),
    /// To work although somebody else may be at it, and to store nothing.
    Beside(Beside),
    /// To return the error: the work of another caller failed, the store did, another request has
    /// this key, or patience has ended.
    Refused(Error),
}

/// What came of a caller's watch.
enum Watched {
    Found(Entry),
    /// The lead is the caller's.
    Locked(Lease),
    Refused(Error),
    GaveUp,
    /// Nothing that ends its wait.
    Nothing,
}

/// What a look at the store came to.
enum Look {
    Found(Entry),
    Locked(Lease),
    /// The lock has been its living holder's for `lock_ttl`.
    Outwaited,
    AnotherRequest,
    /// The work failed elsewhere, and is not to be tried before this moment.
    CoolingDown(Instant),
    Nothing,
}

/// What the one who looks has seen so far.
#[derive(Default)]
struct Looker {
    /// Whether it had to wait for anything.
    waited: bool,
    /// Since when the lock came too late to be of use.
    late_since: Option<Instant>,
}

impl<S: KvStore + Clone> Contention<'_, S> {
    /// Waits for the caller's turn. A caller waits once: it is never sent back to the end of any
    /// queue.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves whatever it had to the next caller.
    pub(crate) async fn turn(&self) -> Turn {
        let mut broken = false;
        loop {
            let aboard = match self.until_given_up(self.board()).await {
                Some(Ok(aboard)) => aboard,
                Some(Err(turn)) => return turn,
                None => return Turn::Refused(too_slow().with_operation(self.operation)),
            };
            // Boxed: what finds its result at once is spared the size of a wait.
            match Box::pin(self.wait(aboard)).await {
                // What failed another caller's look may be chance: each asks for itself, once. More
                // would keep all of them at a store that goes on failing. Whoever works although it
                // fails does not wait for it.
                Err(_) if !broken || self.works_although_the_store_fails() => broken = true,
                Err(error) => return Turn::Refused(error.with_operation(self.operation)),
                Ok(turn) => return turn,
            }
        }
    }

    /// The caller's turn where it comes without waiting for anybody, for a caller that has seen that the
    /// result is not there, or that the store is `down`. None where somebody else is at work, or the
    /// store fails: [`turn`](Self::turn) knows what to do then.
    pub(crate) async fn turn_at_once(&self, down: Option<ErrorKind>) -> Option<Turn> {
        self.check_runtime().ok()?;
        let seat = match self.store.flights() {
            None => Seat::alone(),
            Some(flights) => flights.open(self.purpose, self.key, None).ok()?,
        };
        let aboard = self.aboard(seat);
        let claimed = match down {
            Some(kind) => Err(kind),
            None => claim(self.store, self.key, self.reading, self.tag, self.lease, self.looks)
                .await
                .map_err(|error| error.kind()),
        };
        match claimed {
            Ok(Claim::Locked(lease)) => {
                aboard.take_lead();
                aboard.mark(self.tag);
                Some(Turn::Lead(Lead::new(aboard, lease)))
            }
            Ok(Claim::Found(result)) => {
                aboard.land(result.value.clone(), result.gone_at);
                Some(Turn::Found(result))
            }
            Ok(Claim::Held | Claim::Late) => None,
            Err(kind) if self.works_although(kind) => {
                aboard.cannot_keep(kind);
                aboard.take_place(self.lease.ttl).then(|| Turn::Beside(Beside::new(aboard)))
            }
            Err(_) => None,
        }
    }

    /// Whether a store that fails so on a lock is no reason to fail the caller.
    fn works_although(&self, kind: ErrorKind) -> bool {
        // A store that takes no lock, for it is full or read-only, is no reason to fail a read.
        let unlockable = matches!(kind, ErrorKind::Full | ErrorKind::ReadOnly);
        self.works_although_the_store_fails() || self.works_beside() && unlockable
    }

    /// Boards the flight of the key. Whoever finds none under way asks the store before opening one.
    async fn board(&self) -> Result<Aboard, Turn> {
        let flights = self.store.flights();
        if let Some(seat) =
            flights.and_then(|flights| flights.board_existing(self.purpose, self.key))
        {
            self.check_runtime()?;
            return Ok(Aboard::new(seat));
        }
        let down = match self.read(self.reading).await {
            Ok(Some(result)) => return Err(Turn::Found(result)),
            Ok(None) => None,
            Err(error) if self.works_although_the_store_fails() => Some(error.kind()),
            Err(error) => return Err(Turn::Refused(error)),
        };
        self.check_runtime()?;
        let seat =
            flights.map_or_else(Seat::alone, |flights| flights.board(self.purpose, self.key));
        let aboard = self.aboard(seat);
        if let Some(why) = down {
            aboard.cannot_keep(why);
            aboard.open_place(self.lease.ttl);
        }
        Ok(aboard)
    }

    /// Goes aboard. What this caller cannot decode counts as none for all.
    fn aboard(&self, seat: Seat) -> Aboard {
        let aboard = Aboard::new(seat);
        if let Some(ignored) = self.reading.ignored {
            aboard.flight().ignore(Bytes::copy_from_slice(ignored));
        }
        aboard
    }

    /// Waits aboard. An error is the store's, as another caller aboard has seen it.
    async fn wait(&self, mut aboard: Aboard) -> Result<Turn> {
        if self.is_inside(&aboard) {
            aboard.stop_waiting();
            return Ok(match self.patience {
                Patience::ThenBeside { .. } => Turn::Beside(Beside::new(aboard)),
                Patience::Until(_) => Turn::Refused(self.in_progress()),
            });
        }
        let mut looker = Looker::default();
        loop {
            if self.meets_another_request(&aboard) {
                return Ok(Turn::Refused(self.another_request()));
            }
            match self.until_given_up(waiting(aboard.called(self.idle()))).await {
                None => return Ok(Turn::Refused(self.given_up(&aboard))),
                Some(Call::Landed { value, gone_at }) => {
                    return Ok(Turn::Landed(Entry::new(value, gone_at)));
                }
                Some(Call::Failed { again_at }) => {
                    return Ok(Turn::Refused(self.failing(again_at)));
                }
                Some(Call::Broken(error)) => return Err(error),
                Some(Call::Lead(baton)) => match baton.downcast::<Lease>() {
                    Ok(lease) if lease.tag() == self.tag && lease.is_renewed_for(self.store) => {
                        aboard.mark(self.tag);
                        return Ok(Turn::Lead(Lead::new(aboard, *lease)));
                    }
                    // The lock says that it is another request's, whose caller went away, or it is
                    // renewed on another caller's runtime, which may have gone with it.
                    lease => {
                        aboard.return_lead();
                        drop(lease);
                    }
                },
                Some(Call::Place) => return Ok(Turn::Beside(Beside::new(aboard))),
                Some(Call::Watch) => match self.watch(&aboard, &mut looker).await {
                    Watched::Nothing => {}
                    Watched::GaveUp => {
                        return Ok(Turn::Refused(self.given_up(&aboard)));
                    }
                    Watched::Found(result) => return Ok(Turn::Found(result)),
                    Watched::Locked(lease) => {
                        aboard.take_lead();
                        aboard.mark(self.tag);
                        return Ok(Turn::Lead(Lead::new(aboard, lease)));
                    }
                    Watched::Refused(error) => return Ok(Turn::Refused(error)),
                },
            }
        }
    }

    /// Looks at the store for all aboard, until something comes of it, the caller is called away or
    /// gives up.
    async fn watch(&self, aboard: &Aboard, looker: &mut Looker) -> Watched {
        let look = tokio::select! {
            biased;
            () = aboard.called_away() => return Watched::Nothing,
            () = until(self.place_opens(aboard)) => {
                aboard.open_place(self.lease.ttl);
                return Watched::Nothing;
            }
            look = self.until_given_up(self.look(aboard, looker)) => look,
        };
        match look {
            None => Watched::GaveUp,
            Some(Ok(Look::Nothing)) => Watched::Nothing,
            Some(Ok(Look::Found(result))) => {
                aboard.land(result.value.clone(), result.gone_at);
                Watched::Found(result)
            }
            // A newer caller has more time left than the one who had to wait for the lock.
            Some(Ok(Look::Locked(lease))) if looker.waited && !aboard.is_next() => {
                drop(aboard.leave_lead(Box::new(lease)));
                Watched::Nothing
            }
            Some(Ok(Look::Locked(lease))) => Watched::Locked(lease),
            Some(Ok(Look::Outwaited)) => {
                aboard.open_place(self.lease.ttl);
                Watched::Nothing
            }
            Some(Ok(Look::CoolingDown(until))) => {
                aboard.fail(Some(until));
                Watched::Refused(self.failing(Some(until)))
            }
            Some(Ok(Look::AnotherRequest)) => Watched::Refused(self.another_request()),
            Some(Err(error)) => self.look_failed(aboard, error).await,
        }
    }

    /// Whether this caller is inside a computation of the key, which a wait would keep from ending.
    fn is_inside(&self, aboard: &Aboard) -> bool {
        if !is_nested() {
            return false;
        }
        let refresh = self.store.flights().and_then(|flights| match self.purpose {
            // Of a value that has gone away since: the lock is the refresh's.
            Purpose::Cached => flights.find(Purpose::Refreshed, self.key),
            Purpose::Refreshed | Purpose::Idempotent => None,
        });
        is_computing(aboard.flight()) || refresh.as_ref().is_some_and(is_computing)
    }

    async fn look_failed(&self, aboard: &Aboard, error: Error) -> Watched {
        if self.works_although(error.kind()) {
            aboard.cannot_keep(error.kind());
            aboard.open_place(self.lease.ttl);
        } else if aboard.led_since().is_none() {
            aboard.break_up(&error);
            return Watched::Refused(error.with_operation(self.operation));
        }
        // Somebody aboard is at work, or about to be. A store that fails at once must not be asked
        // without a pause.
        let pause = sleep(self.retry_delay);
        tokio::select! {
            biased;
            () = aboard.called_away() => {}
            () = until(self.place_opens(aboard)) => {}
            _ = self.until_given_up(pause) => {}
        }
        Watched::Nothing
    }

    /// Looks at the store once, and waits for a change where there is nothing to do.
    ///
    /// While a caller of this process computes, its value comes within the process. What anybody else
    /// stores is worth a look now and then, and no subscription.
    async fn look(&self, aboard: &Aboard, looker: &mut Looker) -> Result<Look> {
        let ignored = aboard.flight().ignored();
        let reading = self.reading_with(ignored.as_deref());
        if aboard.led_since().is_none() {
            let began = Instant::now();
            match claim(self.store, self.key, reading, self.tag, self.lease, self.looks).await? {
                Claim::Locked(lease) => return Ok(Look::Locked(lease)),
                Claim::Found(result) => return Ok(Look::Found(result)),
                Claim::Held => {
                    looker.late_since = None;
                    aboard.led_elsewhere();
                    match self.look_at_lock(aboard).await? {
                        Look::Nothing => {}
                        look => return Ok(look),
                    }
                }
                #[cfg(feature = "mutants")]
                Claim::Late if aboard.is(Mutant::TakesLateForHeld) => {}
                Claim::Late => {
                    let late_since = *looker.late_since.get_or_insert(began);
                    if self.works_beside() && late_since.elapsed() >= self.lease.ttl {
                        aboard.cannot_keep(ErrorKind::Timeout);
                        return Ok(Look::Outwaited);
                    }
                }
            }
        }
        looker.waited = true;
        waits();
        if aboard.led_since().is_some() {
            sleep(self.retry_delay).await;
        } else {
            self.store.wait_for_change(self.key, reading.ignored, self.retry_delay).await;
        }
        Ok(self.read(reading).await?.map_or(Look::Nothing, Look::Found))
    }

    /// Looks at the lock that somebody else holds: whose it is, whether it is a cool-down, and whether
    /// its holder lives and has been waited for long enough.
    ///
    /// A holder that died leaves its lock for a while. So after `lock_ttl` the lock's expiry is
    /// noted, and only a renewal *after that* shows a holder that is alive. Of a dead one the lock
    /// expires instead, and one of all those who contend for it succeeds.
    async fn look_at_lock(&self, aboard: &Aboard) -> Result<Look> {
        if !self.works_beside() && self.tag.is_none() {
            return Ok(Look::Nothing);
        }
        let asked = Instant::now();
        let Some((holder, expiry)) = self.store.get_with_ttl(&lock_key(self.key)).await? else {
            return Ok(Look::Nothing);
        };
        let now = Instant::now();
        let cools_down = cooldown::is_one(&holder);
        #[cfg(feature = "mutants")]
        let cools_down = cools_down || aboard.is(Mutant::TakesLocksForCoolDowns);
        if cools_down {
            let left = expiry.remaining().unwrap_or(self.lease.ttl);
            return Ok(Look::CoolingDown(now + cooldown::lasts(left)));
        }
        if self.is_another_request(tag_of_lock(&holder)) {
            return Ok(Look::AnotherRequest);
        }
        let sighting = aboard.sighting();
        let (anybody_since, known) = match sighting {
            Some(sighting) => {
                (sighting.anybody_since, (sighting.holder == holder).then_some(sighting))
            }
            None => (now, None),
        };
        let Some(Sighting { since, expires: noted, .. }) = known else {
            #[cfg(feature = "mutants")]
            if aboard.is(Mutant::TakesARenewalForLife) {
                let expires = expiry.remaining().map(|left| now + left);
                aboard.sight(Sighting { holder, since: now, anybody_since, expires });
                return Ok(Look::Nothing);
            }
            // One holder after the other, each for less than `lock_ttl`, must not keep a caller for
            // ever. The one successor of a holder that died comes sooner than this.
            let outwaited = anybody_since.elapsed() >= self.lease.ttl.saturating_mul(2);
            let anybody_since = if outwaited { now } else { anybody_since };
            aboard.sight(Sighting { holder, since: now, anybody_since, expires: None });
            return Ok(if outwaited { Look::Outwaited } else { Look::Nothing });
        };
        if since.elapsed() < self.lease.ttl {
            return Ok(Look::Nothing);
        }
        // However long the answer took, the lock expires between these two.
        let earliest = expiry.remaining().and_then(|left| asked.checked_add(left));
        let latest = expiry.remaining().and_then(|left| now.checked_add(left));
        let lives = match (noted, earliest) {
            // A lock that never expires has no holder that could be dead.
            (_, None) => true,
            // One that lasts for longer than this caller's own may be renewed too rarely to tell.
            (_, Some(earliest)) if earliest > now + self.lease.ttl => {
                since.elapsed() >= self.lease.ttl.saturating_mul(2)
            }
            (None, Some(_)) => false,
            // A renewal moves it by a third of a TTL.
            (Some(noted), Some(earliest)) => {
                earliest.saturating_duration_since(noted) > self.lease.ttl / 6
            }
        };
        if lives {
            // From here on it is waited for anew, before yet another caller works beside it.
            aboard.sight(Sighting { holder, since: now, anybody_since: now, expires: None });
            return Ok(Look::Outwaited);
        }
        if noted.is_none() {
            aboard.sight(Sighting { holder, since, anybody_since, expires: latest });
        }
        Ok(Look::Nothing)
    }

    fn check_runtime(&self) -> Result<(), Turn> {
        check_runtime().map_err(|error| Turn::Refused(error.with_operation(self.operation)))
    }

    /// After which the one who has the watch is taken for a caller that is not polled: longer than a
    /// look takes that finds nothing.
    fn idle(&self) -> Duration {
        self.lease.ttl.max(self.retry_delay.saturating_mul(2))
    }

    fn place_opens(&self, aboard: &Aboard) -> Option<Instant> {
        match self.patience {
            Patience::ThenBeside { .. } => aboard.place_opens(self.lease.ttl),
            Patience::Until(_) => None,
        }
    }

    /// `None` where patience has ended first.
    async fn until_given_up<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        match self.patience {
            Patience::ThenBeside { .. } => Some(wait.await),
            Patience::Until(give_up) => timeout_at(give_up, wait).await.ok(),
        }
    }

    fn works_beside(&self) -> bool {
        matches!(self.patience, Patience::ThenBeside { .. })
    }

    fn works_although_the_store_fails(&self) -> bool {
        matches!(self.patience, Patience::ThenBeside { although_the_store_fails: true })
    }

    /// Whether `theirs` is known to be of another request.
    fn is_another_request(&self, theirs: Option<&str>) -> bool {
        matches!((self.tag, theirs), (Some(ours), Some(theirs)) if ours != theirs)
    }

    fn meets_another_request(&self, aboard: &Aboard) -> bool {
        self.tag.is_some() && self.is_another_request(aboard.tag().as_deref())
    }

    fn error(&self, kind: ErrorKind, message: &'static str) -> Error {
        Error::new(kind, message).with_operation(self.operation)
    }

    /// What a caller hears where the work failed for another one.
    fn failing(&self, again_at: Option<Instant>) -> Error {
        let message = "the last computation behind this key failed";
        let error = self.error(ErrorKind::Failing, message);
        match again_at {
            Some(at) => error.with_retry_after(at.saturating_duration_since(Instant::now())),
            None => error,
        }
    }

    /// What a caller hears whose patience has ended.
    fn given_up(&self, aboard: &Aboard) -> Error {
        // The flight may have been marked since it was boarded.
        if self.meets_another_request(aboard) {
            self.another_request()
        } else if aboard.is_led() {
            self.in_progress()
        } else {
            // Nobody is known to be at work: the store did not get as far as that.
            too_slow().with_operation(self.operation)
        }
    }

    pub(crate) fn in_progress(&self) -> Error {
        self.error(ErrorKind::InProgress, "another caller is still at work")
            .with_retry_after(self.lease.ttl)
    }

    fn another_request(&self) -> Error {
        self.error(ErrorKind::KeyReused, "this key was used for another request")
    }

    /// What one of those aboard cannot decode counts as none for all of them.
    fn reading_with<'r>(&'r self, ignored: Option<&'r [u8]>) -> Reading<'r> {
        Reading { ignored: ignored.or(self.reading.ignored), ..self.reading }
    }

    async fn read(&self, reading: Reading<'_>) -> Result<Option<Entry>> {
        let found = reading.read(self.store, self.key).await;
        found.map_err(|error| error.with_operation(self.operation))
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// A lock's value is its token and, where the request has one, `:` and its tag.
fn tag_of_lock(value: &[u8]) -> Option<&str> {
    let (token, tag) = std::str::from_utf8(value).ok()?.split_once(':')?;
    // A lock that another library wrote may hold anything.
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    (hex(token, 32) && hex(tag, 64)).then_some(tag)
}
