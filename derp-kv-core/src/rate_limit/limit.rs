use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use crate::coordinate::keys::{RATE_LIMIT_PREFIX, check_duration, helper_key};
use crate::error::{Error, ErrorKind, Result};

/// A limit of so many calls a window.
///
/// It is passed by reference: keep one in a `const` or a field, and no call allocates for it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::RateLimit;
///
/// const CHECKOUT: RateLimit = RateLimit::new(5, Duration::from_secs(60));
/// let large_order = CHECKOUT.cost(3);
/// # let _ = large_order;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RateLimit {
    pub(crate) limit: u64,
    pub(crate) window: Duration,
    pub(crate) cost: u64,
    key_prefix: Cow<'static, str>,
}

impl RateLimit {
    /// `limit` calls in each `window`; a limit of 0 denies all.
    pub const fn new(limit: u64, window: Duration) -> Self {
        Self { limit, window, cost: 1, key_prefix: Cow::Borrowed(RATE_LIMIT_PREFIX) }
    }

    /// What this call counts for, from 1 to the limit. By default 1.
    pub fn cost(mut self, cost: u64) -> Self {
        self.cost = cost;
        self
    }

    /// What the counter's key begins with. By default `derp:ratelimit`. No other helper may have the
    /// same.
    pub fn key_prefix(mut self, key_prefix: impl Into<Cow<'static, str>>) -> Self {
        self.key_prefix = key_prefix.into();
        self
    }

    pub(crate) fn key(&self, id: &[u8]) -> Result<Bytes> {
        helper_key(RATE_LIMIT_PREFIX, &self.key_prefix, id)
    }

    /// Checks all that a call needs, and returns its cost as counters have it and the window in
    /// whole milliseconds.
    pub(crate) fn check(&self) -> Result<(i64, Duration)> {
        let invalid = |message: &'static str| Error::new(ErrorKind::InvalidArgument, message);
        let window = check_duration("window", self.window)?;
        if self.cost == 0 {
            return Err(invalid("`cost` must be above zero; `rate_limit_peek` counts nothing"));
        }
        if self.cost > self.limit && self.limit > 0 {
            return Err(invalid("`cost` is above the limit: the call could never be allowed"));
        }
        let cost = i64::try_from(self.cost)
            .map_err(|_| invalid("`cost` must be at most 9223372036854775807"))?;
        Ok((cost, window))
    }

    /// No counter goes further than an `i64`.
    pub(crate) fn allows(&self, count: u64) -> bool {
        count <= self.limit.min(i64::MAX.unsigned_abs())
    }
}
