//! The fixed window: a counter whose key lasts for a window, at which derp-py counts, too.

use std::time::Duration;

use crate::error::{ErrorKind, Result};
use crate::rate_limit::limit::FixedWindow;
use crate::store::counter::Counter;
use crate::store::expiry::Expiry;
use crate::store::kv_store::KvStore;
use crate::store::step::record::{in_millis, nanos};
use crate::store::step::standing::{Standing, Stepped};

/// How much longer than the window a counter may last that began with this very limit: a store may
/// keep whole seconds, and rounds up.
const ROUNDING: Duration = Duration::from_secs(1);

pub(crate) async fn count<S>(store: &S, key: &[u8], limit: &FixedWindow) -> Result<Stepped>
where
    S: KvStore + ?Sized,
{
    let window = limit.window;
    let (counter, counted) = match store.incr(key, limit.cost, Some(window)).await {
        Ok(counter) => (counter, true),
        Err(error) if error.kind() == ErrorKind::NotAnInteger => {
            (full(store, key).await?.ok_or(error)?, false)
        }
        Err(error) => return Err(error),
    };
    let left = counter.expiry.remaining().filter(|left| *left <= window + ROUNDING);
    if left.is_none() {
        // A counter that something else left without an expiry would deny for ever, and one of a
        // longer window, from before the limit was changed, for longer than this limit says. The
        // call is counted already.
        let given = store.expire(key, window).await;
        given.map_err(|error| error.with_may_have_applied(true))?;
    }
    let count = u64::try_from(counter.value).unwrap_or(0);
    let fits = counted && limit.allows(count);
    Ok(limit.stands(fits, count, left.unwrap_or(window)))
}

/// A counter that is too high to be counted up.
async fn full<S: KvStore + ?Sized>(store: &S, key: &[u8]) -> Result<Option<Counter>> {
    let Some((value, expiry)) = store.get_with_ttl(key).await? else { return Ok(None) };
    Ok(Counter::parse(&value).ok().map(|value| Counter { value, expiry }))
}

pub(crate) async fn peek<S>(store: &S, key: &[u8], limit: &FixedWindow) -> Result<Stepped>
where
    S: KvStore + ?Sized,
{
    let (count, expiry) = match store.get_with_ttl(key).await? {
        Some((value, expiry)) => (Counter::parse(&value)?, expiry),
        None => (0, Expiry::In(Duration::ZERO)),
    };
    let count = u64::try_from(count).unwrap_or(0);
    let fits = limit.allows(count.saturating_add(limit.cost.unsigned_abs()));
    // A longer window, from before the limit was changed, lasts until the next call is counted.
    let left = expiry.remaining().unwrap_or(limit.window);
    let mut stepped = limit.standing(fits, count, left);
    if expiry == Expiry::Never {
        // It stays until the next call that is counted gives it an expiry.
        stepped.retry_after = None;
        stepped.next_after = None;
    }
    Ok(Stepped::new(fits, [stepped]))
}

/// Takes the cost off the counter of this window, down to 0, and leaves the window's end.
///
/// The counter is looked at first, so that nothing is made where nothing was counted. Where the window
/// ends between the two commands, the counter that is made then is put right in a third.
pub(crate) async fn refund<S>(store: &S, key: &[u8], limit: &FixedWindow) -> Result<Stepped>
where
    S: KvStore + ?Sized,
{
    let Some((value, expiry)) = store.get_with_ttl(key).await? else {
        return Ok(limit.stands(true, 0, Duration::ZERO));
    };
    let back = Counter::parse(&value)?.clamp(0, limit.cost);
    let left = |expiry: Expiry| expiry.remaining().unwrap_or(limit.window);
    if back == 0 {
        return Ok(limit.stands(true, 0, left(expiry)));
    }
    let mut counter = store.incr(key, -back, Some(limit.window)).await?;
    if counter.value < 0 {
        // Another refund was faster, or the window has ended. Below 0 more would pass than the limit.
        let put_right = store.incr(key, -counter.value, Some(limit.window)).await;
        counter = put_right.map_err(|error| error.with_may_have_applied(true))?;
    }
    let count = u64::try_from(counter.value).unwrap_or(0);
    Ok(limit.stands(true, count, left(counter.expiry)))
}

impl FixedWindow {
    fn stands(&self, fits: bool, count: u64, left: Duration) -> Stepped {
        Stepped::new(fits, [self.standing(fits, count, left)])
    }

    fn standing(&self, fits: bool, count: u64, left: Duration) -> Standing {
        let left = in_millis(nanos(left));
        Standing {
            fits,
            count,
            remaining: self.limit.saturating_sub(count),
            retry_after: (!fits && self.limit > 0).then_some(left),
            next_after: (count > 0).then_some(left),
            reset_after: left,
        }
    }
}
