//! Room under the memory bound, and its refusal.

use derp_kv_core::{Error, ErrorKind};

/// What writes take of the pinned records' bound: the whole of what they leave there, and by how
/// much that is more than what is there now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    pub(crate) size: usize,
    pub(crate) growth: usize,
}

impl Room {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            size: self.size.saturating_add(other.size),
            growth: self.growth.saturating_add(other.growth),
        }
    }
}

/// Why a write fails.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no room now: to reclaim expired records may help.
    NoRoomNow,
    /// It fails however much is reclaimed.
    Final(Error),
}

impl Refusal {
    pub(crate) fn never_fits() -> Self {
        Self::Final(Error::new(ErrorKind::Full, "larger than the store's memory bound"))
    }

    // No `From`: callers of this crate would have to name the type of an error that `?` converts.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::NoRoomNow => Error::new(ErrorKind::Full, "the store's memory bound is reached"),
            Self::Final(error) => error,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}
