use std::time::Duration;

/// When a present key goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// The key stays until it is deleted.
    Never,
    /// The key is absent after this much time: never zero, never above the TTL that was set.
    ///
    /// A store tells it as exactly as it keeps it. A rate limit takes the time since its last write
    /// from it, and would lose at each write what the answer was rounded by.
    In(Duration),
}

impl Expiry {
    /// The time left, `None` for [`Expiry::Never`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use derp_kv_core::Expiry;
    ///
    /// assert_eq!(Expiry::In(Duration::from_secs(3)).remaining(), Some(Duration::from_secs(3)));
    /// assert_eq!(Expiry::Never.remaining(), None);
    /// ```
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::In(left) => Some(left),
        }
    }
}
