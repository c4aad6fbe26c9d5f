//! One atomic read-modify-write of a key, by a function that is known to the core.

pub(crate) mod ask;
pub(crate) mod change;
pub(crate) mod future;
pub(crate) mod limits;
pub(crate) mod record;
pub(crate) mod smooth;
pub(crate) mod standing;
pub(crate) mod strict;

use crate::error::Result;
use crate::store::expiry::Expiry;
use crate::store::step::change::Change;
use crate::store::step::smooth::SmoothStep;
use crate::store::step::standing::Stepped;
use crate::store::step::strict::StrictStep;

/// One atomic read-modify-write of a key: what [`KvStore::step`](crate::KvStore::step) does.
///
/// A step is a pure function, [`apply`](Self::apply): of what the key holds and how long it lasts, to
/// what the key shall hold then. A store runs it under its lock, in a transaction, or as a script of
/// its own that does the same; one that has none of these runs it in a compare-and-set loop.
///
/// [`RateLimit::step`](crate::RateLimit::step) makes one. Make a new one for each call: each carries
/// a number of its own, by which two writes of the same numbers differ. Of one that is made twice, two
/// writes may be taken for one, and count once.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::{Ask, Change, Expiry, RateLimit};
///
/// let limit = RateLimit::smooth(1, Duration::from_secs(1));
/// let (Change::Set { value, ttl }, first) = limit.step(Ask::Admit)?.apply(None)? else { panic!() };
/// assert!(first.admitted() && ttl == Duration::from_secs(1));
///
/// let left = Expiry::In(Duration::from_millis(400));
/// let (change, second) = limit.step(Ask::Admit)?.apply(Some((&value, left)))?;
/// assert!(matches!(change, Change::Keep) && !second.admitted());
/// assert_eq!(second.standings()[0].retry_after, Some(Duration::from_millis(400)));
/// # Ok::<(), derp_kv_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Limits that let calls pass evenly.
    Smooth(SmoothStep),
    /// Limits that are never exceeded in any window.
    Strict(StrictStep),
}

impl Step {
    /// What the step makes of a key that holds `seen`, or is absent.
    ///
    /// The time that is left of the key is the only clock: `seen` must be of one moment, and that
    /// of the write must not be earlier. It may be zero here, in the last moment of a key.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) where the value is not one that such a step has
    /// written. Nothing may be changed then.
    pub fn apply(&self, seen: Option<(&[u8], Expiry)>) -> Result<(Change, Stepped)> {
        match self {
            Self::Smooth(step) => step.apply(seen),
            Self::Strict(step) => step.apply(seen),
        }
    }
}
