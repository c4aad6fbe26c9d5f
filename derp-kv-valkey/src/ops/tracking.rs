//! Waiting for a key to change.

use std::pin::pin;
use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::cluster::router::{Progress, Router};
use crate::cluster::slots::slot_of;
use crate::node::wire::Sent;
use crate::protocol::reply;

/// The longest sleep: a key that expires is not announced in time.
pub(crate) const LONGEST: Duration = Duration::from_secs(1);
/// The interval of looking again where the server tells nothing.
const POLL: Duration = Duration::from_millis(50);

/// Returns once the value of `key` may differ from `seen`, or after `at_most`.
///
/// The server is asked to tell of the next change in the same step in which the value is read, so
/// no change falls between the two. A lost connection wakes as well.
pub(crate) async fn wait_for_change(
    router: &Router,
    key: &[u8],
    seen: Option<&[u8]>,
    at_most: Duration,
) {
    let until = Instant::now() + at_most.min(LONGEST);
    let watched = timeout_at(until, watch(router, key, seen, until)).await;
    if watched == Ok(Watched::Impossible) {
        sleep(POLL.min(until.saturating_duration_since(Instant::now()))).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Watched {
    /// There may be news.
    Changed,
    /// The server cannot tell, or not now.
    Impossible,
}

async fn watch(router: &Router, key: &[u8], seen: Option<&[u8]>, until: Instant) -> Watched {
    let slot = if router.is_cluster() { slot_of(key) } else { 0 };
    let Some(link) = router.shared.owner(slot) else { return Watched::Impossible };
    let Some(wire) = router.wire(&link, &mut Progress::default()).await else {
        return Watched::Impossible;
    };
    if !wire.tracking {
        return Watched::Impossible;
    }
    let permit = wire.permit().await;
    let waiter = wire.waiters.register(key);
    let mut changed = pin!(waiter.changed.notified());
    changed.as_mut().enable();

    // Only a key that is there can expire.
    let may_expire = seen.is_some();
    let mut pipeline = Pipeline::with_capacity(3);
    pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
    pipeline.cmd("GET").arg(key);
    if may_expire {
        pipeline.cmd("PTTL").arg(key);
    }
    let count = pipeline.len();
    let sent = timeout(router.config().op_timeout, wire.send_all(&pipeline, count)).await;
    drop(permit);
    let Ok(Sent::Reply(replies)) = sent else { return Watched::Impossible };
    let [Value::Okay, value, pttl @ ..] = &replies[..] else { return Watched::Impossible };
    let value = match value {
        Value::Nil => None,
        Value::BulkString(bytes) => Some(&bytes[..]),
        _ => return Watched::Impossible,
    };
    if value != seen {
        return Watched::Changed;
    }
    let gone = match pttl.first().map(|pttl| reply::integer(pttl).and_then(reply::expiry)) {
        Some(Ok(Some(expiry))) => expiry.remaining(),
        Some(Ok(None)) | None => None,
        Some(Err(_)) => return Watched::Impossible,
    };
    let gone = gone.map_or(until, |left| Instant::now() + left + Duration::from_millis(1));
    // A connection that ended before the waiter was registered wakes nobody.
    if wire.is_open() {
        let _ = timeout_at(gone.min(until), changed).await;
    }
    Watched::Changed
}
