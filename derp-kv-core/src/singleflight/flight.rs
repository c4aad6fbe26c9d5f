use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;
use crate::singleflight::state::{End, State};

/// Longer than an answer of the store usually takes.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// What the callers of one key share.
#[derive(Default)]
pub(crate) struct Flight {
    aboard: AtomicUsize,
    state: Mutex<State>,
}

impl Flight {
    #[cfg(feature = "mutants")]
    pub(crate) fn broken(mutant: Mutant) -> Self {
        let flight = Self::default();
        flight.with(|state| state.mutant = Some(mutant));
        flight
    }

    pub(crate) fn board(&self) {
        self.aboard.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells whether the one who leaves was the last.
    pub(crate) fn leave(&self) -> bool {
        self.aboard.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Reads or changes the state, and then wakes whom that concerns and drops what it replaced:
    /// neither must meet a locked flight.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        let woken = std::mem::take(&mut state.woken);
        let dropped = std::mem::take(&mut state.dropped);
        drop(state);
        drop(dropped);
        for waker in woken {
            waker.wake();
        }
        result
    }

    /// Says that what is computed aboard is out of date, and must not be stored.
    pub(crate) fn outdate(&self) {
        self.with(|state| state.outdated = true);
    }

    /// Says that the computation failed. Nobody waits for it: it stays in the map, for those who come
    /// to see it there.
    pub(crate) fn fail(&self) {
        self.with(|state| state.end(End::Failed { again_at: None }));
    }

    /// Takes it for over after so long, though nobody takes it out of the map: who is to do that may be
    /// on a runtime that nobody drives any more.
    pub(crate) fn is_over_after(&self, how_long: Duration) {
        self.with(|state| state.over_at = Instant::now().checked_add(how_long));
    }

    /// Notes when the value goes away that this refresh is to replace.
    pub(crate) fn is_of(&self, gone_at: Option<Instant>) {
        self.with(|state| state.of_gone_at = gone_at);
    }

    /// Whether another flight may take the place of this one, for a value that goes away at `gone_at`: it
    /// is over, or has failed with another value. What is left of a key is known to a round trip; a value
    /// that was stored since goes away later by more.
    pub(crate) fn is_over(&self, gone_at: Option<Instant>) -> bool {
        self.with(|state| {
            let another = matches!((state.of_gone_at, gone_at), (Some(of), Some(gone_at))
                if gone_at.saturating_duration_since(of) > ROUND_TRIP);
            state.over_at.is_some_and(|over_at| over_at <= Instant::now())
                || state.has_failed() && another
        })
    }

    /// A value that is in the store and counts as none, for all aboard: one of them cannot decode it.
    pub(crate) fn ignore(&self, value: Bytes) {
        self.with(|state| state.ignored = Some(value));
    }

    pub(crate) fn ignored(&self) -> Option<Bytes> {
        self.with(|state| state.ignored.clone())
    }

    /// Whether it has ended with a failed computation.
    pub(crate) fn has_failed(&self) -> bool {
        self.with(|state| state.has_failed())
    }

    /// Gives `value` to all who wait. It goes away at `gone_at`, where that is known.
    pub(crate) fn land(&self, value: Bytes, gone_at: Option<Instant>) {
        self.with(|state| state.end(End::Landed { value, gone_at }));
    }
}
