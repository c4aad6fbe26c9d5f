use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How far a law has come, to be told from outside when it hangs, and what it found of the harness.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    cases: AtomicU64,
    current: Mutex<String>,
    defaults: Mutex<Vec<DefaultMethod>>,
    /// How long a call takes, once it was measured.
    latency: OnceLock<Duration>,
}

/// A method of the harness that the law needed and that was left as it is by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DefaultMethod {
    SecondHandle,
    Sever,
    Elapse,
}

thread_local! {
    /// Whether the default of `Harness::elapse` began on this thread.
    static DEFAULT_ELAPSE: Cell<bool> = const { Cell::new(false) };
}

/// The only method of the harness whose answer cannot say that it was left as it is.
pub(crate) fn note_default_elapse() {
    DEFAULT_ELAPSE.set(true);
}

pub(crate) fn take_default_elapse() -> bool {
    DEFAULT_ELAPSE.take()
}

impl DefaultMethod {
    /// What a report says of it.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::SecondHandle => {
                "second_handle: a clone, which proves little about several processes"
            }
            Self::Sever => "sever: none, so what is told of a lost answer is unproved",
            Self::Elapse => "elapse: the suite's own",
        }
    }
}

impl Progress {
    pub(crate) fn cases(&self) -> u64 {
        self.cases.load(Ordering::Relaxed)
    }

    pub(crate) fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn begin(&self, case: String) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = case;
    }

    pub(crate) fn count(&self) {
        self.cases.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn has_latency(&self) -> bool {
        self.latency.get().is_some()
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        self.latency.get_or_init(|| latency);
    }

    /// How many times longer than on a store nearby things take here: time-outs are made for calls of
    /// up to two milliseconds.
    pub(crate) fn stretch(&self) -> u32 {
        let millis = self.latency.get().map_or(0, Duration::as_millis);
        u32::try_from(millis / 2).unwrap_or(u32::MAX).clamp(1, 100)
    }

    pub(crate) fn note(&self, default: DefaultMethod) {
        let mut defaults = self.defaults.lock().unwrap_or_else(PoisonError::into_inner);
        if !defaults.contains(&default) {
            defaults.push(default);
        }
    }

    pub(crate) fn defaults(&self) -> Vec<DefaultMethod> {
        self.defaults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
