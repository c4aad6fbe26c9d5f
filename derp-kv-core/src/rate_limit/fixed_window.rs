use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;
use crate::rate_limit::limit::RateLimit;
use crate::rate_limit::status::RateLimitStatus;
use crate::store::counter::Counter;
use crate::store::expiry::Expiry;
use crate::store::kv_store::KvStore;

/// How much longer than the window a counter may last that began with this very limit: a store may
/// keep whole seconds, and rounds up.
const ROUNDING: Duration = Duration::from_secs(1);

/// Counts a call and tells whether it is within the limit: a fixed window that begins with
/// the first call, at `{prefix}:{id}`.
///
/// # What is guaranteed, and what not
///
/// * One command. Of N simultaneous calls exactly `limit` are allowed, over any number of
///   processes.
/// * Denied calls are counted too, with their whole cost: of a limit of 10 with 5 used, a denied call
///   of cost 9 leaves nothing for one of cost 1. The window does not grow by them.
/// * A limit that is changed binds at once. A counter that lasts for longer than the window, because
///   the window was longer when it began, is cut to the window by the call that finds it, in a
///   second command; so is a counter that was found without an expiry.
/// * A call that fails may have been counted. Whether to let it through then is yours to say.
/// * Around the edge of a window up to twice the limit may pass.
///
/// Laws: `helpers::rate_limit_is_exact`, `helpers::rate_limit_window_ends`,
/// `helpers::rate_limit_repairs_immortal_counters`, `helpers::rate_limit_binds_at_once`,
/// `helpers::rate_limit_counts_costs`, `faults::rate_limit_counts_what_was_applied`.
///
/// # Errors
///
/// Those of the store, where the call may have been counted, and
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad id, a window out of range,
/// a cost of 0 or above the limit, and a `key_prefix` that is another helper's.
///
/// # Cancel safety
///
/// A dropped call is counted or not.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use derp_kv_core::{KvStoreExt, RateLimit};
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let limit = RateLimit::new(1, Duration::from_secs(60));
/// assert!(kv.rate_limit("checkout:ada", &limit).await?.allowed);
/// let denied = kv.rate_limit("checkout:ada", &limit).await?;
/// assert!(!denied.allowed && denied.retry_after_secs() <= Some(60));
/// # Ok(()) }
/// ```
pub async fn rate_limit<S, K>(store: &S, id: K, limit: &RateLimit) -> Result<RateLimitStatus>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]>,
{
    let named = |error: Error| error.with_operation(Operation::RateLimit);
    let key = limit.key(id.as_ref()).map_err(named)?;
    let (cost, window) = limit.check().map_err(named)?;
    let (counter, counted) = match store.incr(&key, cost, Some(window)).await {
        Ok(counter) => (counter, true),
        Err(error) if error.kind() == ErrorKind::NotAnInteger => {
            let full = full(store, &key).await.and_then(|full| full.ok_or(error));
            (full.map_err(named)?, false)
        }
        Err(error) => return Err(named(error)),
    };
    let left = counter.expiry.remaining().filter(|left| *left <= window + ROUNDING);
    if left.is_none() {
        // A counter that something else left without an expiry would deny for ever, and one of a
        // longer window, from before the limit was changed, for longer than this limit says. The
        // call is counted already.
        let given = store.expire(&key, window).await;
        given.map_err(|error| named(error).with_may_have_applied(true))?;
    }
    let reset_after = left.unwrap_or(window);
    let allowed = |count| counted && limit.allows(count);
    Ok(RateLimitStatus::new(limit, counter.value, reset_after, allowed))
}

/// A counter that is too high to be counted up.
async fn full<S: KvStore + ?Sized>(store: &S, key: &[u8]) -> Result<Option<Counter>> {
    let Some((value, expiry)) = store.get_with_ttl(key).await? else { return Ok(None) };
    Ok(Counter::parse(&value).ok().map(|value| Counter { value, expiry }))
}

/// Tells how a call would fare, and counts and changes nothing.
///
/// A counter that lasts for longer than the window, from before the limit was changed, is told as it
/// is: it goes on until the next call that is counted cuts it.
///
/// # Errors
///
/// As [`rate_limit`](crate::KvStoreExt::rate_limit), and
/// [`NotAnInteger`](crate::ErrorKind::NotAnInteger) where the key holds something else.
///
/// # Cancel safety
///
/// Nothing is written; drop it at any time.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use derp_kv_core::{KvStoreExt, RateLimit};
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let limit = RateLimit::new(5, Duration::from_secs(60));
/// assert_eq!(kv.rate_limit_peek("checkout:ada", &limit).await?.remaining, 5);
/// # Ok(()) }
/// ```
pub async fn rate_limit_peek<S, K>(store: &S, id: K, limit: &RateLimit) -> Result<RateLimitStatus>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]>,
{
    let named = |error: Error| error.with_operation(Operation::RateLimitPeek);
    let key = limit.key(id.as_ref()).map_err(named)?;
    let (_, window) = limit.check().map_err(named)?;
    let (count, expiry) = match store.get_with_ttl(&key).await.map_err(named)? {
        Some((value, expiry)) => (Counter::parse(&value).map_err(named)?, expiry),
        None => (0, Expiry::In(window)),
    };
    // A longer window, from before the limit was changed, lasts until the next call is counted.
    let reset_after: Duration = expiry.remaining().unwrap_or(window);
    let allowed = |count: u64| limit.allows(count.saturating_add(limit.cost));
    let mut status = RateLimitStatus::new(limit, count, reset_after, allowed);
    if expiry == Expiry::Never {
        // It stays until the next call that is counted gives it an expiry.
        status.retry_after = None;
    }
    Ok(status)
}

/// Forgets what was counted for `id`, and tells whether anything was. Of the limit only the
/// `key_prefix` matters.
///
/// Laws: `helpers::rate_limit_reset_forgets`.
///
/// # Errors
///
/// Those of the store, and [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad id.
///
/// # Cancel safety
///
/// The counter is deleted or not; what it answered is lost.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use derp_kv_core::{KvStoreExt, RateLimit};
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let limit = RateLimit::new(1, Duration::from_secs(60));
/// kv.rate_limit("checkout:ada", &limit).await?;
/// assert!(kv.rate_limit_reset("checkout:ada", &limit).await?);
/// assert!(kv.rate_limit("checkout:ada", &limit).await?.allowed);
/// # Ok(()) }
/// ```
pub async fn rate_limit_reset<S, K>(store: &S, id: K, limit: &RateLimit) -> Result<bool>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]>,
{
    let named = |error: Error| error.with_operation(Operation::RateLimitReset);
    let key = limit.key(id.as_ref()).map_err(named)?;
    store.delete(&key).await.map_err(named)
}
