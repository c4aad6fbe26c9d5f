use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;
use crate::singleflight::state::{End, State};

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

    /// Gives `value` to all who wait.
    pub(crate) fn land(&self, value: Bytes) {
        self.with(|state| state.end(End::Landed(value)));
    }
}
