use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The longest time-to-live that a store accepts: 100 years of 365 days.
///
/// The bound keeps every deadline representable on every backend.
pub const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A valid time-to-live: whole milliseconds, at least one, at most [`MAX_TTL`].
///
/// Every backend turns its `ttl` arguments into this type before it does anything else, so that
/// all of them accept and refuse the same durations and round in the same direction.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::{ErrorKind, Ttl};
///
/// assert_eq!(Ttl::new(Duration::from_micros(1))?.as_millis(), 1);
/// assert_eq!(Ttl::new(Duration::from_micros(1_500_001))?.as_millis(), 1501);
/// assert_eq!(Ttl::new(Duration::ZERO).unwrap_err().kind(), ErrorKind::InvalidArgument);
/// # Ok::<(), derp_kv_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

impl Ttl {
    /// Checks `ttl` and rounds a fraction of a millisecond up.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for zero and for more than [`MAX_TTL`].
    pub fn new(ttl: Duration) -> Result<Self> {
        if ttl.is_zero() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a TTL must be longer than zero; pass `None` for no expiry",
            ));
        }
        if ttl > MAX_TTL {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a TTL must be at most 100 years; pass `None` for no expiry",
            ));
        }
        // No more than 100 years, so it does not overflow.
        Ok(Self(ttl.as_secs() * 1_000 + u64::from(ttl.subsec_nanos().div_ceil(1_000_000))))
    }

    /// [`Ttl::new`] for the `Option<Duration>` that the write operations take.
    ///
    /// # Errors
    ///
    /// As [`Ttl::new`]; `None` is always valid.
    pub fn optional(ttl: Option<Duration>) -> Result<Option<Self>> {
        ttl.map(Self::new).transpose()
    }

    /// The time-to-live in milliseconds, never zero.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// The time-to-live as a duration of whole milliseconds.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl From<Ttl> for Duration {
    fn from(ttl: Ttl) -> Self {
        ttl.as_duration()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_ttl_is_valid_and_a_nanosecond_more_is_not() {
        assert_eq!(Ttl::new(MAX_TTL).unwrap().as_duration(), MAX_TTL);
        let error = Ttl::new(MAX_TTL + Duration::from_nanos(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(Ttl::new(Duration::MAX).is_err());
    }

    #[test]
    fn fractions_round_up() {
        for (nanos, millis) in [(1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            let ttl = Ttl::new(Duration::from_nanos(nanos)).unwrap();
            assert_eq!(ttl.as_millis(), millis);
        }
    }

    #[test]
    fn no_ttl_is_valid() {
        assert_eq!(Ttl::optional(None).unwrap(), None);
        assert!(Ttl::optional(Some(Duration::ZERO)).is_err());
    }
}
