use std::time::Duration;

use crate::coordinate::keys::{LOCK_TTL, RETRY_DELAY, check_duration};
use crate::error::Result;
use crate::store::ttl::Ttl;

/// What [`guarded_get`](crate::KvStoreExt::guarded_get) does where the store cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnStoreError {
    /// The caller gets the store's error.
    #[default]
    Fail,
    /// It counts as a miss: the value is computed at once, by one caller at a time in this process,
    /// and not stored.
    Compute,
}

/// Options of [`guarded_get`](crate::KvStoreExt::guarded_get).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::{GuardedGet, OnStoreError};
///
/// let options = GuardedGet::new(Duration::from_secs(300))
///     .lock_ttl(Duration::from_secs(10))
///     .on_store_error(OnStoreError::Compute);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct GuardedGet {
    pub(crate) ttl: Option<Duration>,
    pub(crate) lock_ttl: Duration,
    pub(crate) retry_delay: Duration,
    pub(crate) on_store_error: OnStoreError,
}

impl GuardedGet {
    /// Keeps a computed value for `ttl`.
    pub const fn new(ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..Self::forever() }
    }

    /// Keeps a computed value until it is deleted or invalidated.
    pub const fn forever() -> Self {
        Self {
            ttl: None,
            lock_ttl: LOCK_TTL,
            retry_delay: RETRY_DELAY,
            on_store_error: OnStoreError::Fail,
        }
    }

    /// How long a computed value is kept.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long the lock outlives a holder that crashed, and after how long behind a holder that is
    /// alive another caller computes as well. By default two seconds: choose more than a computation
    /// usually takes.
    pub const fn lock_ttl(mut self, lock_ttl: Duration) -> Self {
        self.lock_ttl = lock_ttl;
        self
    }

    /// How long it takes at most until those who wait see a value in the store. By default 50 ms.
    pub const fn retry_delay(mut self, retry_delay: Duration) -> Self {
        self.retry_delay = retry_delay;
        self
    }

    /// What to do where the store cannot be read. By default the caller gets the error.
    pub const fn on_store_error(mut self, on_store_error: OnStoreError) -> Self {
        self.on_store_error = on_store_error;
        self
    }

    /// The same options in whole milliseconds.
    pub(crate) fn checked(&self) -> Result<Self> {
        Ttl::optional(self.ttl)?;
        let lock_ttl = check_duration("lock_ttl", self.lock_ttl)?;
        let retry_delay = check_duration("retry_delay", self.retry_delay)?;
        Ok(Self { lock_ttl, retry_delay, ..*self })
    }
}
