//! Computing a value that is the caller's to compute, and what becomes of it.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;

use crate::cache::fill::Fill;
use crate::cache::options::{GuardedGet, Storing};
use crate::cache::rest::{Refreshing, keep_for, rest};
use crate::cache::tell::OPERATION;
use crate::coordinate::lease::Lease;
use crate::coordinate::nesting::computing;
use crate::coordinate::run_to_end::RunToEnd;
use crate::coordinate::work::{Beside, Lead};
use crate::error::{ErrorKind, Result};
use crate::observe::event::{ComputeReason, Event};
use crate::singleflight::flight::Flight;
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;
use crate::store::kv_store::KvStore;
#[cfg(feature = "mutants")]
use crate::store::mutant;

/// A computation that fell to this caller. Dropped before it has ended, it leaves its lease to the
/// newest waiter, or frees it.
pub(crate) struct Duty<S> {
    pub(crate) cell: Cell<S>,
    pub(crate) right: Right,
}

/// Where a value belongs, and how it is kept there.
pub(crate) struct Cell<S> {
    pub(crate) store: S,
    pub(crate) key: Bytes,
    pub(crate) options: GuardedGet,
}

/// What the caller computes as.
pub(crate) enum Right {
    /// Under the lock, of a value that is not there.
    Lead(Lead),
    /// Under the lock, of a value that is still served.
    Refresh(Refreshing),
    /// Although somebody else holds the lock.
    Beside(Beside),
}

/// A computation that is under way, for who watches. Dropped, it has come to nothing.
struct Computation<S: KvStore> {
    store: S,
    reason: ComputeReason,
    began: Instant,
    succeeded: bool,
}

impl<S: KvStore> Drop for Computation<S> {
    fn drop(&mut self) {
        let Self { reason, succeeded, began, .. } = *self;
        let took = began.elapsed();
        let event = Event::Computed { operation: OPERATION, reason, succeeded, took };
        event.tell(self.store.observer());
    }
}

/// What a computation came to: the caller's value, and its bytes with what becomes of them, or why it
/// has none.
pub(crate) struct Computed<T> {
    pub(crate) value: T,
    pub(crate) fill: Result<Fill>,
}

impl<S: KvStore + Clone> Duty<S> {
    /// The flight of the value.
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        match &self.right {
            Right::Lead(lead) => lead.flight(),
            Right::Refresh(refreshing) => refreshing.flight(),
            Right::Beside(beside) => beside.flight(),
        }
    }

    /// Why the value is computed.
    pub(crate) fn reason(&self) -> ComputeReason {
        match self.right {
            Right::Lead(_) => ComputeReason::Miss,
            Right::Refresh(_) => ComputeReason::Refresh,
            Right::Beside(_) => ComputeReason::Beside,
        }
    }

    /// A computation as who watches sees it; none where nobody does.
    fn watched(&self) -> Option<Computation<S>> {
        self.cell.store.observer()?;
        let (store, reason) = (self.cell.store.clone(), self.reason());
        Some(Computation { store, reason, began: Instant::now(), succeeded: false })
    }

    /// Whether there is a value to serve meanwhile.
    pub(crate) fn refreshes(&self) -> bool {
        matches!(self.right, Right::Refresh(_))
    }

    /// Computes the value, keeps it and gives it to all who wait.
    pub(crate) async fn run<T, E>(
        self,
        work: impl Future<Output = Result<Computed<T>, E>>,
    ) -> Result<T, E> {
        let flight = self.flight().clone();
        #[cfg(feature = "mutants")]
        let began = tokio::time::Instant::now();
        let mut work = pin!(computing(&flight, work));
        let computation = self.watched();
        let result = loop {
            if let Some(result) = self.work_for_a_while(work.as_mut()).await {
                break result;
            }
        };
        ended(computation, result.is_ok());
        #[cfg(feature = "mutants")]
        let this = self.with_wrong_backoff(began.elapsed());
        #[cfg(not(feature = "mutants"))]
        let this = self;
        this.end(result).await
    }

    /// As [`run`](Self::run), in a task of its own, whose `caller` may go away. It looks for its caller each
    /// [`hung_after`](GuardedGet::hung_after), and is dropped where that one has gone: a computation that
    /// hangs must not keep the value from being computed for as long as the process lives.
    pub(crate) async fn run_while_wanted<T, E>(
        self,
        caller: Weak<()>,
        work: impl Future<Output = Result<Computed<T>, E>>,
    ) -> Option<Result<T, E>> {
        let flight = self.flight().clone();
        let mut work = pin!(computing(&flight, work));
        let computation = self.watched();
        let result = loop {
            match self.work_for_a_while(work.as_mut()).await {
                Some(result) => break result,
                None if caller.strong_count() == 0 => return None,
                None => {}
            }
        };
        ended(computation, result.is_ok());
        Some(self.end(result).await)
    }

    /// Works for [`hung_after`](GuardedGet::hung_after). The lock is renewed for twice that time and no
    /// longer: this future may not be polled any more, while the store's runtime goes on renewing.
    async fn work_for_a_while<R>(&self, work: impl Future<Output = R>) -> Option<R> {
        let options = &self.cell.options;
        match &self.right {
            Right::Lead(lead) => lead.renew_for(options.renewed_for()),
            Right::Refresh(refreshing) => refreshing.renew_for(options.renewed_for()),
            Right::Beside(_) => {}
        }
        timeout(options.hung_after(), work).await.ok()
    }

    #[cfg(feature = "mutants")]
    fn with_wrong_backoff(mut self, took: Duration) -> Self {
        if mutant::is(&self.cell.store, Mutant::FreesOnFailure) {
            self.cell.options.backoff = Some(Duration::ZERO);
        } else if mutant::is(&self.cell.store, Mutant::CoolsDownFromTheStart) {
            let least = Duration::from_millis(1);
            let backoff = self.cell.options.refresh_backoff();
            self.cell.options.backoff =
                backoff.map(|backoff| backoff.saturating_sub(took).max(least));
        }
        self
    }

    async fn end<T, E>(self, result: Result<Computed<T>, E>) -> Result<T, E> {
        let Self { cell, right } = self;
        match right {
            Right::Lead(lead) => cell.end_lead(lead, result).await,
            Right::Refresh(refreshing) => cell.end_refresh(refreshing, result).await,
            Right::Beside(beside) => cell.end_beside(beside, result),
        }
    }
}

fn ended<S: KvStore>(computation: Option<Computation<S>>, succeeded: bool) {
    if let Some(mut computation) = computation {
        computation.succeeded = succeeded;
    }
}

impl<S: KvStore + Clone> Cell<S> {
    pub(crate) fn of(store: &S, key: &[u8], options: GuardedGet) -> Self {
        Self { store: store.clone(), key: Bytes::copy_from_slice(key), options }
    }

    fn end_beside<T, E>(&self, beside: Beside, result: Result<Computed<T>, E>) -> Result<T, E> {
        let unkept = beside.unkept();
        match result {
            Ok(Computed { value, fill: Ok(fill) }) => {
                beside.land(fill.value);
                if let Some(why) = unkept {
                    self.not_kept(why);
                }
                Ok(value)
            }
            Ok(Computed { value, fill: Err(error) }) => {
                beside.fail();
                self.not_kept(error.kind());
                Ok(value)
            }
            Err(error) => {
                beside.fail();
                Err(error)
            }
        }
    }

    async fn end_lead<T, E>(&self, mut lead: Lead, result: Result<Computed<T>, E>) -> Result<T, E> {
        match result {
            Ok(Computed { value, fill: Ok(fill) }) => {
                let bytes = fill.value.clone();
                match self.keep(&mut lead, fill).await {
                    Stored::Kept | Stored::Unstored | Stored::Refused => lead.land(bytes),
                    // The value may be older than what is there by now: the caller who computed it
                    // gets it, and the others look for themselves.
                    Stored::Lost => {}
                }
                Ok(value)
            }
            Ok(Computed { value, fill: Err(error) }) => {
                self.not_kept(error.kind());
                // The origin is well: there is nothing to wait for.
                lead.fail(None).await;
                Ok(value)
            }
            Err(error) => {
                lead.fail(self.options.miss_backoff()).await;
                Err(error)
            }
        }
    }

    /// Nobody waits for a refresh. Where its value is not kept, its flight stays for a while, so that this
    /// process does not begin another one at once.
    async fn end_refresh<T, E>(
        &self,
        mut refreshing: Refreshing,
        result: Result<Computed<T>, E>,
    ) -> Result<T, E> {
        let Some(mut lead) = refreshing.end() else { return result.map(|computed| computed.value) };
        let retry_delay = self.options.retry_delay;
        let backoff = self.options.refresh_backoff();
        let (result, pause) = match result {
            Ok(Computed { value, fill: Ok(fill) }) => {
                let pause = match self.keep(&mut lead, fill).await {
                    Stored::Kept => None,
                    Stored::Unstored | Stored::Lost => Some(retry_delay),
                    Stored::Refused => Some(rest(backoff, retry_delay)),
                };
                (Ok(value), pause)
            }
            Ok(Computed { value, fill: Err(error) }) => {
                self.not_kept(error.kind());
                lead.free().await;
                (Ok(value), Some(retry_delay))
            }
            Err(error) => {
                #[cfg(feature = "mutants")]
                if mutant::is(&self.store, Mutant::WritesStaleBack)
                    && let Ok(Some(stale)) = self.store.get(&self.key).await
                {
                    let _ = self.store.set(&self.key, &stale, self.options.stored_for()).await;
                }
                Event::RefreshFailed { operation: OPERATION }.tell(self.store.observer());
                lead.flight().fail();
                let cools_down = match backoff {
                    Some(backoff) => lead.cool_down(backoff).await.unwrap_or(false),
                    None => {
                        lead.free().await;
                        false
                    }
                };
                (Err(error), Some(rest(backoff.filter(|_| cools_down), retry_delay)))
            }
        };
        if let Some(pause) = pause {
            let flight = lead.flight().clone();
            keep_for(&flight, lead, pause);
        }
        result
    }

    /// Stores the value, unless the lease is lost or the value out of date, and frees the lock.
    async fn keep(&self, lead: &mut Lead, fill: Fill) -> Stored {
        let outdated = lead.is_outdated();
        let Some(lease) = lead.end() else { return Stored::Lost };
        let store = self.store.clone();
        let (key, value) = (self.key.clone(), fill.value);
        let storing = self.options.storing(fill.keep);
        #[cfg(feature = "mutants")]
        let storing = self.storing_wrongly(storing);
        // Once begun, this runs to its end even when its caller goes away: a value without a freed lock
        // would block the key.
        let is_kept = !matches!(storing, Storing::Not);
        let stored = RunToEnd::new(async move {
            match storing {
                _ if outdated => {
                    let _ = lease.release().await;
                    Ok(Stored::Lost)
                }
                Storing::Not => match lease.release().await {
                    Ok(false) => Ok(Stored::Lost),
                    Ok(true) | Err(_) => Ok(Stored::Unstored),
                },
                Storing::Remove if lease.is_lost() => Ok(Stored::Lost),
                Storing::Remove => match store.delete(&key).await {
                    Ok(_) => lease.release().await.map(|held| match held {
                        true => Stored::Kept,
                        false => Stored::Lost,
                    }),
                    Err(error) => Err(error),
                },
                Storing::For(ttl) => store_fenced(store, key, value, ttl, lease).await,
            }
        });
        match stored.await {
            Ok(Stored::Lost) => {
                if is_kept {
                    self.not_kept(ErrorKind::Held);
                }
                Stored::Lost
            }
            Ok(stored) => stored,
            Err(error) => {
                self.not_kept(error.kind());
                Stored::Refused
            }
        }
    }

    #[cfg(feature = "mutants")]
    fn storing_wrongly(&self, storing: Storing) -> Storing {
        let (is, all) = (|wrong| mutant::is(&self.store, wrong), self.options.stored_for());
        let jitters = self.options.jitter > 0.0;
        match (storing, all) {
            (Storing::Not, all) if is(Mutant::KeepsUnstored) => Storing::For(all),
            (Storing::For(Some(ttl)), Some(all)) if jitters && is(Mutant::JittersUpwards) => {
                Storing::For(Some(all + all.saturating_sub(ttl)))
            }
            (Storing::For(_), all) if jitters && is(Mutant::IgnoresJitter) => Storing::For(all),
            (Storing::For(Some(ttl)), _) if is(Mutant::DropsTheStaleTime) => {
                Storing::For(ttl.checked_sub(self.options.stale.unwrap_or_default()))
            }
            (right, _) => right,
        }
    }

    fn not_kept(&self, kind: ErrorKind) {
        Event::NotKept { operation: OPERATION, kind }.tell(self.store.observer());
    }
}

/// What became of a computed value.
enum Stored {
    /// It is in the store.
    Kept,
    /// It was not to be kept.
    Unstored,
    /// The store did not take it, or did not say that it did.
    Refused,
    /// The lease was not held to the end: something newer may be there.
    Lost,
}

/// Stores the value, and takes it back where the lease was not held to the end.
///
/// `invalidate` and `refresh` delete the lock before they touch the value. So either the release
/// below finds the lock gone, or the value was stored before their write.
///
/// The value is at hand: that it could not be kept is no reason to fail anybody, or to keep them
/// waiting. What is left to do after a failure is done in the background, and where the store cannot
/// be reached, the value lives as long as its TTL.
async fn store_fenced<S: KvStore + Clone>(
    store: S,
    key: Bytes,
    value: Bytes,
    ttl: Option<Duration>,
    lease: Lease,
) -> Result<Stored> {
    if lease.is_lost() {
        return Ok(Stored::Lost);
    }
    if let Err(error) = store.set(&key, &value, ttl).await {
        let untouched = !error.may_have_applied();
        lease.release_detached(move |freed| async move {
            if !untouched && !matches!(freed, Ok(true)) {
                let _ = store.compare_and_delete(&key, &value).await;
            }
        });
        return Err(error);
    }
    match lease.release().await {
        Ok(true) => Ok(Stored::Kept),
        #[cfg(feature = "mutants")]
        Ok(false) if mutant::is(&store, Mutant::NeverTakesBack) => Ok(Stored::Kept),
        Ok(false) => {
            let _ = store.compare_and_delete(&key, &value).await;
            Ok(Stored::Lost)
        }
        // Whether it was held to the end, nobody knows. Taken back later, the value would go away
        // under whoever has read it meanwhile.
        Err(error) => {
            let _ = store.compare_and_delete(&key, &value).await;
            Err(error)
        }
    }
}
