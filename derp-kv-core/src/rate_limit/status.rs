use std::time::Duration;

use crate::rate_limit::limit::RateLimit;

/// The answer to a call under a [`RateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitStatus {
    /// Whether the call may go on. Ask this, and not whether there is a
    /// [`retry_after`](Self::retry_after): a call that is never allowed has none.
    pub allowed: bool,
    /// What was counted in this window, denied calls included.
    pub count: u64,
    /// The limit.
    pub limit: u64,
    /// What is left in this window, 0 at the least.
    pub remaining: u64,
    /// For a denied call, when a new window begins: whoever waits that long, alone, is allowed. None
    /// where the limit is 0, which never allows any.
    pub retry_after: Option<Duration>,
    /// When this window ends.
    pub reset_after: Duration,
}

impl RateLimitStatus {
    /// What `count` in a window that ends after `reset_after` comes to.
    pub(crate) fn new(
        limit: &RateLimit,
        count: i64,
        reset_after: Duration,
        allowed: impl FnOnce(u64) -> bool,
    ) -> Self {
        let count = u64::try_from(count).unwrap_or(0);
        let allowed = allowed(count);
        Self {
            allowed,
            count,
            limit: limit.limit,
            remaining: limit.limit.saturating_sub(count),
            retry_after: (!allowed && limit.limit > 0).then_some(reset_after),
            reset_after,
        }
    }

    /// [`retry_after`](Self::retry_after) in whole seconds, rounded up: the value of the HTTP
    /// header `Retry-After`.
    #[must_use]
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after.map(|left| left.as_secs() + u64::from(left.subsec_nanos() > 0))
    }
}
