use std::time::Duration;

use bytes::Bytes;

use crate::coordinate::keys::{check_duration, helper_key};
use crate::error::{Error, ErrorKind, Result};
use crate::store::counter::Counter;
use crate::store::expiry::Expiry;
use crate::store::kv_store::KvStore;

/// A limit of so many calls a window.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RateLimit {
    limit: u64,
    window: Duration,
    cost: u64,
    key_prefix: String,
}

impl RateLimit {
    /// `limit` calls in each `window`; a limit of 0 denies all.
    pub fn new(limit: u64, window: Duration) -> Self {
        Self { limit, window, cost: 1, key_prefix: "derp:ratelimit".to_owned() }
    }

    /// What this call counts for, from 1 to the limit. By default 1.
    pub fn cost(mut self, cost: u64) -> Self {
        self.cost = cost;
        self
    }

    /// What the counter's key begins with. By default `derp:ratelimit`.
    pub fn key_prefix(mut self, key_prefix: impl Into<String>) -> Self {
        self.key_prefix = key_prefix.into();
        self
    }

    fn check(&self, id: &[u8]) -> Result<(Bytes, i64)> {
        let invalid = |message: &'static str| Error::new(ErrorKind::InvalidArgument, message);
        let key = helper_key(&self.key_prefix, id)?;
        check_duration("window", self.window)?;
        if self.cost == 0 {
            return Err(invalid("`cost` must be above zero; `rate_limit_peek` counts nothing"));
        }
        if self.cost > self.limit && self.limit > 0 {
            return Err(invalid("`cost` is above the limit: the call could never be allowed"));
        }
        let cost = i64::try_from(self.cost)
            .map_err(|_| invalid("`cost` must be at most 9223372036854775807"))?;
        Ok((key, cost))
    }

    /// No counter goes further than an `i64`.
    fn allows(&self, count: u64) -> bool {
        count <= self.limit.min(i64::MAX.unsigned_abs())
    }

    fn status(
        &self,
        count: i64,
        expiry: Expiry,
        allowed: impl FnOnce(u64) -> bool,
    ) -> RateLimitStatus {
        let count = u64::try_from(count).unwrap_or(0);
        // A counter of a longer window, from before a change of the limit, binds nobody to it.
        let reset_after = expiry.remaining().map_or(self.window, |left| left.min(self.window));
        let allowed = allowed(count);
        RateLimitStatus {
            allowed,
            count,
            limit: self.limit,
            remaining: self.limit.saturating_sub(count),
            retry_after: (!allowed).then_some(reset_after),
            reset_after,
        }
    }
}

/// The answer to a call under a [`RateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitStatus {
    /// Whether the call may go on.
    pub allowed: bool,
    /// What was counted in this window, denied calls included.
    pub count: u64,
    /// The limit.
    pub limit: u64,
    /// What is left in this window, 0 at the least.
    pub remaining: u64,
    /// For a denied call, when the next window begins; never longer than a window.
    pub retry_after: Option<Duration>,
    /// When this window ends.
    pub reset_after: Duration,
}

impl RateLimitStatus {
    /// [`retry_after`](Self::retry_after) in whole seconds, rounded up: the value of the HTTP
    /// header `Retry-After`.
    #[must_use]
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after.map(|left| left.as_secs() + u64::from(left.subsec_nanos() > 0))
    }
}

/// Counts a call and tells whether it is within the limit.
///
/// See [`KvStoreExt::rate_limit`](crate::KvStoreExt::rate_limit).
///
/// # Errors
///
/// As there.
pub async fn rate_limit<S, K>(store: &S, id: K, limit: RateLimit) -> Result<RateLimitStatus>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]> + Send + Sync,
{
    let named = |error: Error| error.with_operation("rate_limit");
    let (key, cost) = limit.check(id.as_ref()).map_err(named)?;
    let (counter, counted) = match store.incr(&key, cost, Some(limit.window)).await {
        Ok(counter) => (counter, true),
        Err(error) if error.kind() == ErrorKind::NotAnInteger => {
            let full = full(store, &key).await.and_then(|full| full.ok_or(error));
            (full.map_err(named)?, false)
        }
        Err(error) => return Err(named(error)),
    };
    if counter.expiry == Expiry::Never {
        // Left by something else than this call, which creates it with its expiry: without one
        // it would deny for ever. The call is counted already.
        let given = store.expire(&key, limit.window).await;
        given.map_err(|error| named(error).with_may_have_applied(true))?;
    }
    Ok(limit.status(counter.value, counter.expiry, |count| counted && limit.allows(count)))
}

/// A counter that is too high to be counted up.
async fn full<S: KvStore + ?Sized>(store: &S, key: &[u8]) -> Result<Option<Counter>> {
    let Some((value, expiry)) = store.get_with_ttl(key).await? else { return Ok(None) };
    Ok(Counter::parse(&value).ok().map(|value| Counter { value, expiry }))
}

/// Tells how a call would fare, and counts nothing.
///
/// See [`KvStoreExt::rate_limit_peek`](crate::KvStoreExt::rate_limit_peek).
///
/// # Errors
///
/// As there.
pub async fn rate_limit_peek<S, K>(store: &S, id: K, limit: RateLimit) -> Result<RateLimitStatus>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]> + Send + Sync,
{
    let named = |error: Error| error.with_operation("rate_limit_peek");
    let (key, _) = limit.check(id.as_ref()).map_err(named)?;
    let (count, expiry) = match store.get_with_ttl(&key).await.map_err(named)? {
        Some((value, expiry)) => (Counter::parse(&value).map_err(named)?, expiry),
        None => (0, Expiry::In(limit.window)),
    };
    let cost = limit.cost;
    Ok(limit.status(count, expiry, |count| limit.allows(count.saturating_add(cost))))
}

/// Forgets what was counted and tells whether anything was.
///
/// See [`KvStoreExt::rate_limit_reset`](crate::KvStoreExt::rate_limit_reset).
///
/// # Errors
///
/// As there.
pub async fn rate_limit_reset<S, K>(store: &S, id: K, limit: RateLimit) -> Result<bool>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]> + Send + Sync,
{
    let named = |error: Error| error.with_operation("rate_limit_reset");
    let (key, _) = limit.check(id.as_ref()).map_err(named)?;
    store.delete(&key).await.map_err(named)
}
