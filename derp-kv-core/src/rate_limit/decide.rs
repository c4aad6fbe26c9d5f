//! The calls of a rate limit, whichever promise it makes.

use std::pin::pin;

use crate::error::{Error, Result};
use crate::observe::call::call;
use crate::observe::call_outcome::CallOutcome;
use crate::observe::decided_by::DecidedBy;
use crate::operation::Operation;
use crate::rate_limit::fixed_window;
use crate::rate_limit::limit::{Plan, RateLimit};
use crate::rate_limit::status::RateLimitStatus;
use crate::store::expiry::Expiry;
use crate::store::kv_store::KvStore;
use crate::store::step::ask::Ask;

/// Counts a call and tells whether it is within the limit.
///
/// [`RateLimit`] says what each limit promises, and where it is kept.
///
/// # What is guaranteed, and what not
///
/// * One command, allowed or denied, also for up to eight limits at once. Of N simultaneous calls
///   exactly as many are allowed as the limit has room for, over any number of processes.
/// * A denied call takes nothing away from a smooth or a strict limit: of a limit of 10 with 5 used,
///   a call of cost 9 is denied and leaves 5. A fixed window counts denied calls too, with their whole
///   cost: that call leaves nothing there. The window does not grow by them.
/// * A limit that is changed binds at once, in both directions: what was counted before it counts on, as
///   units of a fixed or strict limit, and as time of a smooth one. A fixed window's counter that lasts
///   for more than a second longer than the window, because the window was longer when it began, is
///   cut to the window by the call that finds it, in a second command; so is a counter that was found
///   without an expiry. The second is that of a store that keeps whole seconds.
/// * A call that fails may have been counted. Whether to let it through then is yours to say, or
///   [`RateLimiter::on_store_error`](crate::RateLimiter::on_store_error)'s.
/// * On a store that has only the default of [`step`](KvStore::step), a smooth or strict limit takes
///   two commands, and one that many ask at once may answer
///   [`Unavailable`](crate::ErrorKind::Unavailable).
///
/// Laws: `helpers::rate_limit_is_exact`, `helpers::rate_limit_window_ends`,
/// `helpers::rate_limit_repairs_immortal_counters`, `helpers::rate_limit_binds_at_once`,
/// `helpers::rate_limit_counts_costs`, `helpers::rate_limit_keeps_its_bound`,
/// `helpers::rate_limit_tells_when`, `helpers::rate_limit_takes_all_or_nothing`,
/// `helpers::rate_limit_denied_takes_nothing`, `faults::rate_limit_counts_what_was_applied`.
///
/// # Errors
///
/// Those of the store, where the call may have been counted, and
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad id, a window or a period out of
/// range, a cost of 0 or above what the limit ever lets pass, limits that cannot be combined, and a
/// `key_prefix` that is another helper's. [`NotAnInteger`](crate::ErrorKind::NotAnInteger) and
/// [`Corrupt`](crate::ErrorKind::Corrupt) where the key holds something else.
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
/// let limit = RateLimit::strict(1, Duration::from_secs(60));
/// assert!(kv.rate_limit("checkout:ada", &limit).await?.allowed);
/// let denied = kv.rate_limit("checkout:ada", &limit).await?;
/// assert!(!denied.allowed && denied.retry_after_secs() <= Some(61));
/// # Ok(()) }
/// ```
pub async fn rate_limit<S, K>(store: &S, id: K, limit: &RateLimit) -> Result<RateLimitStatus>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]>,
{
    let work = pin!(admit(store, id.as_ref(), limit));
    call(store.observer(), Operation::RateLimit, work, decided).await
}

/// What a call came to that was decided.
pub(crate) fn decided(status: &RateLimitStatus) -> CallOutcome {
    let by = status.source;
    if status.allowed { CallOutcome::Allowed { by } } else { CallOutcome::Denied { by } }
}

async fn admit<S>(store: &S, id: &[u8], limit: &RateLimit) -> Result<RateLimitStatus>
where
    S: KvStore + ?Sized,
{
    let named = |error: Error| error.with_operation(Operation::RateLimit);
    let key = limit.key(id).map_err(named)?;
    let plan = limit.plan(Ask::Admit).map_err(named)?;
    by_plan(store, &key, limit, &plan).await.map_err(named)
}

/// Asks the store for what `plan` says, which admits a call.
pub(crate) async fn by_plan<S>(
    store: &S,
    key: &[u8],
    limit: &RateLimit,
    plan: &Plan,
) -> Result<RateLimitStatus>
where
    S: KvStore + ?Sized,
{
    let stepped = match plan {
        Plan::Fixed(fixed) => fixed_window::count(store, key, fixed).await?,
        Plan::Step(step) => store.step(key, step).await?,
        Plan::Never { violated } => {
            return Ok(RateLimitStatus::unasked(limit, false, Some(*violated)));
        }
    };
    Ok(RateLimitStatus::of(limit, stepped, DecidedBy::Store))
}

/// Tells how a call would fare, and counts and changes nothing.
///
/// The status is that before the call. Where a limit was changed, it tells what is kept as it is: a
/// fixed window's counter that lasts for longer than the window goes on until the next call that is
/// counted cuts it.
///
/// # Errors
///
/// As [`rate_limit`](crate::KvStoreExt::rate_limit).
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
    const CALL: Operation = Operation::RateLimitPeek;
    let id = id.as_ref();
    let work =
        pin!(async { peek(store, id, limit).await.map_err(|error| error.with_operation(CALL)) });
    call(store.observer(), CALL, work, |_| CallOutcome::Done).await
}

async fn peek<S>(store: &S, id: &[u8], limit: &RateLimit) -> Result<RateLimitStatus>
where
    S: KvStore + ?Sized,
{
    let key = limit.key(id)?;
    let stepped = match limit.plan(Ask::Peek)? {
        Plan::Fixed(fixed) => fixed_window::peek(store, &key, &fixed).await?,
        Plan::Step(step) => {
            let seen = store.get_with_ttl(&key).await?;
            let held = seen.as_ref().map(|(value, expiry): &(_, Expiry)| (&value[..], *expiry));
            step.apply(held)?.1
        }
        Plan::Never { violated } => {
            return Ok(RateLimitStatus::unasked(limit, false, Some(violated)));
        }
    };
    Ok(RateLimitStatus::of(limit, stepped, DecidedBy::Store))
}

/// Gives back what a call was counted for, for example one that failed through no fault of the
/// caller's. The status is that after it.
///
/// It gives back the [`cost`](RateLimit::cost) of `limit`, down to nothing counted. Give back what
/// the store admitted, once, and while it counts: whoever gives back more than that lifts the limit,
/// for it is taken from what was counted for others. A smooth or strict limit of 0 gives nothing back, nor
/// do all of which one is 0. A fixed window takes two commands, the others one. Where a fixed window ends
/// between the two, its cost may be taken off the next one.
///
/// Laws: `helpers::rate_limit_refund_gives_back`.
///
/// # Errors
///
/// As [`rate_limit`](crate::KvStoreExt::rate_limit), but any cost above 0 will do. It may have been
/// given back where the error says that it may have been applied.
///
/// # Cancel safety
///
/// It is given back or not; of a fixed window whose end comes between its commands, see above.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use derp_kv_core::{KvStoreExt, RateLimit};
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let limit = RateLimit::strict(1, Duration::from_secs(60));
/// assert!(kv.rate_limit("report:ada", &limit).await?.allowed);
/// // The report could not be made.
/// assert_eq!(kv.rate_limit_refund("report:ada", &limit).await?.remaining, 1);
/// # Ok(()) }
/// ```
pub async fn rate_limit_refund<S, K>(store: &S, id: K, limit: &RateLimit) -> Result<RateLimitStatus>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]>,
{
    const CALL: Operation = Operation::RateLimitRefund;
    let id = id.as_ref();
    let work =
        pin!(async { refund(store, id, limit).await.map_err(|error| error.with_operation(CALL)) });
    call(store.observer(), CALL, work, |_| CallOutcome::Done).await
}

async fn refund<S>(store: &S, id: &[u8], limit: &RateLimit) -> Result<RateLimitStatus>
where
    S: KvStore + ?Sized,
{
    let key = limit.key(id)?;
    let stepped = match limit.plan(Ask::Refund)? {
        Plan::Fixed(fixed) => fixed_window::refund(store, &key, &fixed).await?,
        Plan::Step(step) => store.step(&key, &step).await?,
        Plan::Never { violated } => {
            return Ok(RateLimitStatus::unasked(limit, false, Some(violated)));
        }
    };
    Ok(RateLimitStatus::of(limit, stepped, DecidedBy::Store))
}

/// Forgets what was counted for `id`, and tells whether anything was. Of the limit only its kind and
/// its `key_prefix` matter.
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
    const CALL: Operation = Operation::RateLimitReset;
    let named = |error: Error| error.with_operation(CALL);
    let id = id.as_ref();
    let work = pin!(async {
        let key = limit.key(id).map_err(named)?;
        store.delete(&key).await.map_err(named)
    });
    call(store.observer(), CALL, work, |_| CallOutcome::Done).await
}
