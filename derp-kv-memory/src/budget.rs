//! The memory bound of the pinned entries, and how a write is refused at it.

use std::sync::atomic::{AtomicUsize, Ordering};

use derp_kv_core::{Error, ErrorKind};

/// The bytes that pinned entries take, and how many they may take.
#[derive(Debug)]
pub(crate) struct Budget {
    max_bytes: Option<usize>,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(max_bytes: Option<usize>) -> Self {
        Self { max_bytes, used: AtomicUsize::new(0) }
    }

    pub(crate) fn max_bytes(&self) -> Option<usize> {
        self.max_bytes
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts bytes that pinned entries are about to grow by.
    pub(crate) fn reserve(&self, demand: Demand) -> Result<(), Refusal> {
        let max = self.max_bytes.unwrap_or(usize::MAX);
        let Demand { total, growth } = demand;
        if total > max {
            return Err(Refusal::never_fits());
        }
        let add = |used: usize| used.checked_add(growth).filter(|&sum| growth == 0 || sum <= max);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::FullNow),
        }
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What writes ask of the budget: the whole size of what they leave, and by how much that is more
/// than the size of what they replace.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demand {
    pub(crate) total: usize,
    pub(crate) growth: usize,
}

impl Demand {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            total: self.total.saturating_add(other.total),
            growth: self.growth.saturating_add(other.growth),
        }
    }
}

/// Why a write fails.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The budget is used up now: to sweep expired entries may help.
    FullNow,
    /// The write fails however much is swept.
    Final(Error),
}

impl Refusal {
    pub(crate) fn never_fits() -> Self {
        Self::Final(Error::new(ErrorKind::Full, "larger than the store's memory bound"))
    }

    // No `From`: callers of this crate would have to name the type of an error that `?` converts.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::FullNow => Error::new(ErrorKind::Full, "the store's memory bound is reached"),
            Self::Final(error) => error,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}
