//! What the cache promises of values that are stale, of computations that fail and of those that run
//! on without their callers, over several handles on the same data, as several processes have them.

mod background;
mod cooldown;
mod dead;
mod decide;
mod early;
mod failed;
mod many;
mod outlives;
mod past;
mod stale;
mod typed;
mod wins;

use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Freshness, Got, GuardedGet, KvStore, Source, StaleCause};
use tokio::time::timeout;

use crate::input::Blob;
use crate::model::{Deadline, Span};
use crate::resolution;
use crate::violation::{Violation, ensure, ensure_eq};

pub(crate) use background::*;
pub(crate) use cooldown::*;
pub(crate) use dead::*;
pub(crate) use decide::*;
pub(crate) use early::*;
pub(crate) use failed::*;
pub(crate) use many::*;
pub(crate) use outlives::*;
pub(crate) use past::*;
pub(crate) use stale::*;
pub(crate) use typed::*;
pub(crate) use wins::*;

/// No test waits for this to pass.
const HOUR: Duration = Duration::from_secs(3_600);

/// For how long values are fresh under [`options`], and stale after it.
const TTL: Duration = HOUR;
const STALE: Duration = Duration::from_secs(2 * 3_600);

/// What a loaded machine may add to a wait.
const LATE: Duration = Duration::from_secs(10);

/// Between two calls of one who comes again and again.
const PAUSE: Duration = Duration::from_millis(20);

const OLD: Bytes = Bytes::from_static(b"old");
const NEW: Bytes = Bytes::from_static(b"new");

/// A lock that outlasts every law: no stall of the machine ends a lease.
fn options() -> GuardedGet {
    GuardedGet::new(TTL).stale(STALE).lock_ttl(HOUR)
}

/// Writes a value of which so much is left as if it had been stored with [`options`] so long ago that
/// it has been stale for an hour, and has another hour to go.
async fn store_stale(kv: &impl KvStore, key: &str, value: &[u8]) -> Result<Deadline, Violation> {
    let (set, span) = Span::of(kv.set(key.as_bytes(), value, Some(STALE - HOUR))).await;
    set?;
    Ok(Deadline::new(STALE - HOUR, span))
}

/// Checks that the value and its expiry are those of the write that the deadline is of.
async fn is_unchanged(
    kv: &impl KvStore,
    key: &str,
    value: &[u8],
    written: &Deadline,
    slack: Duration,
) -> Result<(), Violation> {
    let (found, span) = Span::of(kv.get_with_ttl(key.as_bytes())).await;
    let Some((found, expiry)) = found? else {
        return Err(Violation::new("the old value is gone"));
    };
    ensure_eq!(Blob(found.into()), Blob(value.to_vec()), "what is in the place of the old value");
    written.check(expiry, span, slack).map_err(|violation| violation.within("the old value: "))
}

/// What a call gives that does not wait for a computation which goes on.
async fn soon<T>(who: &str, call: impl Future<Output = T>) -> Result<T, Violation> {
    let waited = timeout(LATE, call).await;
    waited.map_err(|_| Violation::new(format!("{who} still waits after {LATE:?}")))
}

/// Checks that a caller got the value that [`store_stale`] wrote, and was told so.
fn is_stale(got: &Got) -> Result<StaleCause, Violation> {
    ensure_eq!(got.value, OLD, "what a caller gets in the stale window");
    stale_for_an_hour(got.freshness, got.source)
}

fn stale_for_an_hour(freshness: Freshness, source: Source) -> Result<StaleCause, Violation> {
    let Freshness::Stale { past, cause, .. } = freshness else {
        return Err(Violation::new("a stale value is said to be fresh"));
    };
    ensure_eq!(source, Source::Store, "where a stale value comes from");
    // No case takes as long as this.
    let most = HOUR + Duration::from_secs(90);
    let least = STALE - resolution::most_left(STALE - HOUR);
    ensure!(
        (least..=most).contains(&past),
        "a value that has been stale for {HOUR:?} is said to have been so for {past:?}"
    );
    Ok(cause)
}
