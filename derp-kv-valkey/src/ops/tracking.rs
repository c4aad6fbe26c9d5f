//! Waiting for a key to change.

use std::pin::pin;
use std::time::{Duration, Instant};

use derp_kv_core::ErrorKind;

use crate::cluster::router::{Progress, Router};
use crate::cluster::slots::slot_of;
use crate::node::connection::Sent;
use crate::observe::span::CommandSpan;
use crate::protocol::encode::encode;
use crate::protocol::reply::Reply;
use crate::protocol::request::{Payload, Safety};
use crate::protocol::shape;

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
    let io = router.io();
    let watched = io.timeout_at(until, watch(router, key, seen, until)).await;
    if watched == Ok(Watched::Impossible) {
        io.sleep_until(until.min(Instant::now() + POLL)).await;
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
    let Some(link) = router.view.link(slot, key) else { return Watched::Impossible };
    let mut progress = Progress::default();
    let Ok(Some(connection)) = router.connection(&link, &mut progress, until).await else {
        return Watched::Impossible;
    };
    if !connection.tracking {
        return Watched::Impossible;
    }
    let waiter = connection.waiters().register(key);
    let mut changed = pin!(waiter.changed.notified());
    changed.as_mut().enable();

    // Only a key that is there can expire.
    let may_expire = seen.is_some();
    let mut bytes = Vec::new();
    encode(&mut bytes, &[b"CLIENT", b"CACHING", b"YES"]);
    encode(&mut bytes, &[b"GET", key]);
    if may_expire {
        encode(&mut bytes, &[b"PTTL", key]);
    }
    let count = 2 + usize::from(may_expire);
    let payload = Payload::Packed { bytes, replies: count };
    // The span ends before the wait for a change, which is none for the server.
    let replies = {
        let span = CommandSpan::of_pipeline(&router.view.server, "PIPELINE", count);
        let sent = connection.send_all(payload, Safety::Retry, router.deadline()).await;
        span.reached(&connection);
        let Sent::Reply(replies) = sent else {
            span.failed(ErrorKind::Unavailable);
            return Watched::Impossible;
        };
        span.ended_pipeline(&connection, &replies, link.address());
        replies
    };
    let [Reply::Okay, value, pttl @ ..] = &replies[..] else { return Watched::Impossible };
    let value = match value {
        Reply::Nil => None,
        Reply::BulkString(bytes) => Some(&bytes[..]),
        _ => return Watched::Impossible,
    };
    if value != seen {
        return Watched::Changed;
    }
    let gone = match pttl.first().map(|pttl| shape::integer(pttl).and_then(shape::expiry)) {
        Some(Ok(Some(expiry))) => expiry.remaining(),
        Some(Ok(None)) | None => None,
        Some(Err(_)) => return Watched::Impossible,
    };
    let gone = gone.map_or(until, |left| Instant::now() + left + Duration::from_millis(1));
    // A connection that ended before the waiter was registered wakes nobody.
    if connection.is_open() {
        let _ = router.io().timeout_at(gone.min(until), changed).await;
    }
    Watched::Changed
}
