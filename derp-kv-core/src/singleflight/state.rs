use std::any::Any;
use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;

/// After which a waiter that has not come for the lead is taken for one that is not polled: whoever is
/// polled then may have it.
const ABSENT: Duration = Duration::from_secs(1);

/// Who is aboard a flight and has which duty. Every change of it is one of the methods below.
#[derive(Default)]
pub(crate) struct State {
    /// The number of the one who boarded last.
    newest: u64,
    /// Who has neither the lead nor the place beside, by number: the newest comes last.
    waiting: BTreeMap<u64, Waker>,
    watch: Option<Watch>,
    lead: Lead,
    place: Option<Place>,
    end: Option<End>,
    /// Whom to wake once the flight is unlocked.
    pub(crate) woken: Vec<Waker>,
    /// What to drop then: what a baton frees may come back to the flight.
    pub(crate) dropped: Vec<Baton>,
    /// Whether an invalidation came after the flight was opened: what is computed here is out of
    /// date.
    pub(crate) outdated: bool,
    /// What tells the leader's request from others with the same key.
    pub(crate) tag: Option<String>,
    /// Whether another process was seen to have the lock.
    pub(crate) led_elsewhere: bool,
    /// Why nothing that is computed aboard can be stored, where that is known.
    pub(crate) unkept: Option<ErrorKind>,
    pub(crate) sighting: Option<Sighting>,
    /// A value that is in the store and counts as none: one of those aboard cannot decode it.
    pub(crate) ignored: Option<Bytes>,
    /// When the value goes away that a refresh is to replace.
    pub(crate) of_gone_at: Option<Instant>,
    /// From when on the flight is over, though it may still be in the map.
    pub(crate) over_at: Option<Instant>,
    #[cfg(feature = "mutants")]
    pub(crate) mutant: Option<Mutant>,
}

struct Watch {
    number: u64,
    /// When the one who has it looked last.
    looked: Instant,
}

#[derive(Default)]
enum Lead {
    #[default]
    Free,
    /// Left to a waiter that has not come to take it yet.
    Left {
        to: u64,
        baton: Baton,
        since: Instant,
    },
    Taken {
        by: u64,
        since: Instant,
    },
}

/// The place beside the lead.
struct Place {
    number: u64,
    /// When the next may have it as well, although this one has not ended.
    until: Instant,
    lasts: Duration,
}

/// What the lead passes on to the one who takes over: the lease. This layer does not know leases.
pub(crate) type Baton = Box<dyn Any + Send>;

/// How a flight ended for all aboard.
pub(crate) enum End {
    /// With this value, which goes away at `gone_at`, where that is known.
    Landed { value: Bytes, gone_at: Option<Instant> },
    /// A computation failed. It is tried again from this moment on, where that is known: what was
    /// computed beside the lead says nothing of the lock.
    Failed { again_at: Option<Instant> },
    /// The store failed like this: everybody asks it for themselves.
    Broken(Error),
}

/// The lock of another process, as those aboard have seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) holder: Bytes,
    /// Since when it has been that holder's, as far as anybody aboard knows.
    pub(crate) since: Instant,
    /// Since when it has been anybody's but theirs, whoever held it.
    pub(crate) anybody_since: Instant,
    /// When the lock was to expire as it was seen once it had been held for long.
    pub(crate) expires: Option<Instant>,
}

/// What a flight has for one who waits.
pub(crate) enum Call {
    Landed {
        value: Bytes,
        gone_at: Option<Instant>,
    },
    Failed {
        again_at: Option<Instant>,
    },
    Broken(Error),
    /// The caller leads, with what the leader before it had.
    Lead(Baton),
    /// The caller computes beside the lead.
    Place,
    /// The caller looks at the store for all.
    Watch,
}

impl State {
    #[cfg(feature = "mutants")]
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Boards a caller, and returns its number.
    pub(crate) fn board(&mut self) -> u64 {
        self.newest += 1;
        self.wait(self.newest);
        self.newest
    }

    /// The caller waits. It has a waker that does nothing until its first poll brings one.
    pub(crate) fn wait(&mut self, number: u64) {
        self.waiting.insert(number, Waker::noop().clone());
    }

    #[cfg(feature = "mutants")]
    pub(crate) fn queue_anew(&mut self, number: u64) -> u64 {
        match self.waiting.remove(&number) {
            Some(waker) => {
                self.newest += 1;
                self.waiting.insert(self.newest, waker);
                self.newest
            }
            None => number,
        }
    }

    /// Whether the flight has ended with a failed computation.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.end, Some(End::Failed { .. }))
    }

    /// Whom the next duty that falls free goes to: the newest waiter.
    fn next(&self) -> Option<u64> {
        #[cfg(feature = "mutants")]
        if self.is(Mutant::OldestFirst) {
            return self.waiting.keys().next().copied();
        }
        self.waiting.keys().next_back().copied()
    }

    pub(crate) fn is_next(&self, number: u64) -> bool {
        self.next().is_none_or(|next| next == number)
    }

    fn wake(&mut self, number: u64) {
        self.woken.extend(self.waiting.get(&number).cloned());
    }

    /// What the flight has for a waiter, which is woken when there is something.
    pub(crate) fn call(&mut self, number: u64, cx: &mut Context<'_>) -> Poll<Call> {
        match &self.end {
            Some(End::Landed { value, gone_at }) => {
                return Poll::Ready(Call::Landed { value: value.clone(), gone_at: *gone_at });
            }
            Some(End::Failed { again_at }) => {
                return Poll::Ready(Call::Failed { again_at: *again_at });
            }
            Some(End::Broken(error)) => return Poll::Ready(Call::Broken(error.copy())),
            None => {}
        }
        if let Some(baton) = self.take_left(number) {
            self.take_lead(number);
            return Poll::Ready(Call::Lead(baton));
        }
        if self.has_place(number) {
            self.stop_waiting(number);
            return Poll::Ready(Call::Place);
        }
        #[cfg(feature = "mutants")]
        if self.is(Mutant::NeverWatches) && self.led_since().is_some() {
            self.register(number, cx);
            return Poll::Pending;
        }
        if self.watch.as_ref().is_none_or(|watch| watch.number == number) {
            self.watch = Some(Watch { number, looked: Instant::now() });
            return Poll::Ready(Call::Watch);
        }
        self.register(number, cx);
        Poll::Pending
    }

    /// Whether the flight has more than the watch for a waiter, which is woken when it has.
    pub(crate) fn call_away(&mut self, number: u64, cx: &mut Context<'_>) -> Poll<()> {
        let leads = matches!(self.lead, Lead::Left { to, .. } if to == number);
        if self.end.is_some() || leads || self.has_place(number) {
            return Poll::Ready(());
        }
        self.register(number, cx);
        Poll::Pending
    }

    fn register(&mut self, number: u64, cx: &mut Context<'_>) {
        if let Some(waker) = self.waiting.get_mut(&number) {
            waker.clone_from(cx.waker());
        }
    }

    /// Takes a caller out of those who wait; the watch goes to the next.
    pub(crate) fn stop_waiting(&mut self, number: u64) {
        self.waiting.remove(&number);
        if self.watch.as_ref().is_some_and(|watch| watch.number == number) {
            self.watch = None;
        }
        if self.watch.is_none()
            && let Some(next) = self.next()
        {
            self.wake(next);
        }
    }

    /// Takes the watch from whoever has not looked for `idle`.
    pub(crate) fn end_idle_watch(&mut self, idle: Duration) {
        if self.watch.as_ref().is_some_and(|watch| watch.looked.elapsed() >= idle) {
            self.watch = None;
        }
    }

    /// Since when somebody aboard has had the lead.
    pub(crate) fn led_since(&self) -> Option<Instant> {
        match self.lead {
            Lead::Free => None,
            Lead::Left { since, .. } | Lead::Taken { since, .. } => Some(since),
        }
    }

    pub(crate) fn take_lead(&mut self, number: u64) {
        self.set_lead(Lead::Taken { by: number, since: Instant::now() });
        // What begins now begins after whatever outdated the work before it.
        self.outdated = false;
        self.stop_waiting(number);
    }

    fn set_lead(&mut self, lead: Lead) {
        if let Lead::Left { baton, .. } = std::mem::replace(&mut self.lead, lead) {
            self.dropped.push(baton);
        }
    }

    /// The baton of a lead that was left to this caller, or to one that did not come for it. The lead
    /// is then free.
    fn take_left(&mut self, number: u64) -> Option<Baton> {
        match std::mem::take(&mut self.lead) {
            Lead::Left { to, baton, since } if to == number || since.elapsed() >= ABSENT => {
                Some(baton)
            }
            lead => {
                self.lead = lead;
                None
            }
        }
    }

    /// Leaves the lead, this caller's or one that is free, to the next. The baton comes back where
    /// nobody waits, and where another has the lead by now.
    pub(crate) fn leave_lead(&mut self, number: u64, baton: Baton) -> Option<Baton> {
        if matches!(self.lead, Lead::Taken { by, .. } if by != number) {
            return Some(baton);
        }
        self.tag = None;
        self.set_lead(Lead::Free);
        match self.next() {
            Some(to) if self.end.is_none() => {
                self.lead = Lead::Left { to, baton, since: Instant::now() };
                self.wake(to);
                None
            }
            _ => Some(baton),
        }
    }

    /// Frees this caller's lead: whoever has the watch contends for the lock anew.
    pub(crate) fn free_lead(&mut self, number: u64) {
        if matches!(self.lead, Lead::Taken { by, .. } if by == number) {
            self.lead = Lead::Free;
            self.tag = None;
        }
    }

    fn has_place(&self, number: u64) -> bool {
        self.place.as_ref().is_some_and(|place| place.number == number)
    }

    /// When the place beside the lead goes to the next; none while nobody aboard leads.
    pub(crate) fn place_opens(&self, lock_ttl: Duration) -> Option<Instant> {
        #[cfg(feature = "mutants")]
        if self.is(Mutant::KeepsThePlace) && self.place.is_some() {
            return None;
        }
        let opens = self.led_since()? + lock_ttl;
        Some(self.place.as_ref().map_or(opens, |place| place.until.max(opens)))
    }

    /// Gives the place beside to the next, unless somebody has it for less than `lock_ttl`.
    pub(crate) fn open_place(&mut self, lock_ttl: Duration) {
        if self.place.as_ref().is_none_or(|place| Instant::now() >= place.until) {
            self.give_place(lock_ttl);
        }
    }

    /// Whom the place beside goes to: the newest waiter, unless it has been given the place before and
    /// never came for it. A caller that is not polled must not keep the place from all others.
    fn next_beside(&self) -> Option<u64> {
        let passed_over = self.place.as_ref().map(|place| place.number);
        let older = passed_over
            .filter(|number| self.waiting.contains_key(number))
            .and_then(|number| self.waiting.range(..number).next_back());
        older.map(|(number, _)| *number).or_else(|| self.next())
    }

    /// Takes the place beside for a caller, where it is free and the flight has not ended.
    pub(crate) fn take_place(&mut self, number: u64, lasts: Duration) -> bool {
        let now = Instant::now();
        let taken = self.place.as_ref().is_some_and(|place| now < place.until);
        if taken || self.end.is_some() {
            return false;
        }
        self.place = Some(Place { number, until: now + lasts, lasts });
        self.stop_waiting(number);
        true
    }

    fn give_place(&mut self, lasts: Duration) {
        if let Some(number) = self.next_beside().filter(|_| self.end.is_none()) {
            self.place = Some(Place { number, until: Instant::now() + lasts, lasts });
            self.wake(number);
        }
    }

    /// A caller goes: what it has goes to the next. The baton comes back where nobody waits.
    pub(crate) fn leave(&mut self, number: u64) -> Option<Baton> {
        self.stop_waiting(number);
        if let Some(place) = self.place.take_if(|place| place.number == number) {
            self.give_place(place.lasts);
        }
        if !matches!(self.lead, Lead::Left { to, .. } if to == number) {
            return None;
        }
        let baton = self.take_left(number)?;
        self.leave_lead(number, baton)
    }

    /// Ends the flight for all who wait. The first end is the one that counts.
    pub(crate) fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.woken.extend(std::mem::take(&mut self.waiting).into_values());
    }
}
