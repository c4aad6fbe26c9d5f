//! Refreshing a value that is there, while everybody else gets it as it is.

use crate::cache::duty::{Cell, Duty, Right};
use crate::cache::freshness::{Age, Freshness, Got, Source, StaleCause, Window};
use crate::cache::options::GuardedGet;
use crate::cache::rest::{Refreshing, keep_for};
use crate::coordinate::entry::{Entry, Reading};
use crate::coordinate::keys::lock_key;
use crate::coordinate::lease::{Acquired, Lease, check_runtime};
use crate::coordinate::work::Lead;
use crate::singleflight::aboard::Aboard;
use crate::singleflight::flights::{Purpose, Seat};
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;
use crate::store::kv_store::KvStore;
#[cfg(feature = "mutants")]
use crate::store::mutant;

/// The right of this process to try for a refresh. Dropped, it goes to the next caller.
pub(crate) struct Refresh<S> {
    cell: Cell<S>,
    window: Window,
    aboard: Aboard,
}

/// What came of trying for a refresh.
pub(crate) enum Claimed<S> {
    /// Nobody is to refresh now, or somebody else does.
    Not(StaleCause),
    /// The value was refreshed meanwhile.
    Already(Entry),
    /// The refresh is the caller's.
    Duty {
        duty: Box<Duty<S>>,
        /// The value as it is now; none where it went away meanwhile.
        seen: Option<Entry>,
    },
}

impl<S: KvStore + Clone> Refresh<S> {
    /// The right to try, unless somebody in this process is trying, or did a moment ago.
    pub(crate) fn board(
        store: &S,
        key: &[u8],
        options: GuardedGet,
        window: Window,
        seen: &Entry,
    ) -> Result<Self, StaleCause> {
        check_runtime().map_err(|_| StaleCause::Failed)?;
        #[cfg(feature = "mutants")]
        if mutant::is(store, Mutant::NeverRefreshes) {
            return Err(StaleCause::Refreshing);
        }
        let seat = match store.flights() {
            None => Seat::alone(),
            #[cfg(feature = "mutants")]
            Some(flights) if flights.is(Mutant::RefreshesForEverybody) => Seat::alone(),
            Some(flights) => {
                flights.open(Purpose::Refreshed, key, seen.gone_at).map_err(|flight| {
                    if flight.has_failed() { StaleCause::Failed } else { StaleCause::Refreshing }
                })?
            }
        };
        let aboard = Aboard::new(seat);
        // Longer than a refresh runs that nobody wants, see `hung_after`.
        aboard.flight().is_over_after(options.renewed_for());
        Ok(Self { cell: Cell::of(store, key, options), window, aboard })
    }

    /// Takes the lock, and looks whether the value is still the one that was `seen`.
    pub(crate) async fn claim(self, seen: &Entry) -> Claimed<S> {
        let Self { cell, window, aboard } = self;
        let Cell { store, key, options } = &cell;
        let pause = |aboard: Aboard, cause: StaleCause| {
            let flight = aboard.flight().clone();
            if cause == StaleCause::Failed {
                flight.fail();
            }
            keep_for(&flight, aboard, options.retry_delay);
            Claimed::Not(cause)
        };
        let lock = lock_key(key);
        #[cfg(feature = "mutants")]
        let lock = if mutant::is(store, Mutant::RefreshesForEverybody) {
            lock_key(crate::coordinate::token::token().unwrap_or_default().as_bytes())
        } else {
            lock
        };
        let lease = match Lease::acquire(store, lock, None, options.lease()).await {
            Ok(Acquired::Lease(lease)) => lease,
            Ok(Acquired::Held) => return pause(aboard, StaleCause::Refreshing),
            Ok(Acquired::Late) | Err(_) => return pause(aboard, StaleCause::Failed),
        };
        let seen = match (Reading { timed: true, ignored: None }).read(store, key).await {
            Ok(Some(now)) if now.value != seen.value || window.age(now.left()) == Age::Fresh => {
                // Whether it could be released matters to nobody: the value is there.
                let _ = lease.release().await;
                return Claimed::Already(now);
            }
            Ok(now) if !lease.is_lost() => now,
            // The store is slower than the lock lasts, or failed.
            Ok(_) | Err(_) => return pause(aboard, StaleCause::Failed),
        };
        aboard.take_lead();
        let lead = Lead::new(aboard, lease);
        let right = Right::Refresh(Refreshing::new(store, lead, options.retry_delay));
        let duty = Box::new(Duty { cell, right });
        Claimed::Duty { duty, seen }
    }
}

/// The value of another caller in this process, which was waited for; none where it is gone by now.
pub(crate) fn joined(entry: &Entry, window: Window) -> Option<Got> {
    let got = serve(entry, window, StaleCause::Refreshing);
    got.map(|got| Got { source: Source::Joined, ..got })
}

/// The value as it is served, none where it is gone by now.
pub(crate) fn serve(entry: &Entry, window: Window, cause: StaleCause) -> Option<Got> {
    let left = entry.left();
    if left.is_some_and(|left| left.is_zero()) {
        return None;
    }
    let freshness = match window.age(left) {
        Age::Fresh | Age::Early => Freshness::Fresh,
        Age::Stale { past } => Freshness::Stale { past, cause },
    };
    Some(Got { value: entry.value.clone(), freshness, source: Source::Store })
}
