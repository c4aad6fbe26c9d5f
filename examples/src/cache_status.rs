//! `Cache-Status` (RFC 9211): where an answer comes from.

use axum::http::{HeaderName, HeaderValue};
use derp_kv_core::{Freshness, Got, Source, StaleCause};

/// The header's name.
pub(crate) const NAME: HeaderName = HeaderName::from_static("cache-status");

/// The header of an answer with what a cache has got.
///
/// * `hit`: the cache had it, and it was fresh.
/// * `hit; ttl=-12; detail=refreshing`: its TTL ended 12 seconds ago, and `detail` says why there is nothing
///   newer.
/// * `fwd=miss`: the database was asked for it.
/// * `fwd=miss; collapsed`: the database was asked for it once, for this request and others together.
///
/// What is left of the TTL of a fresh one is not told: the cache does not know without another command.
pub(crate) fn of<T>(got: &Got<T>) -> HeaderValue {
    match (got.source, got.freshness) {
        (Source::Computed, _) => HeaderValue::from_static("derp-kv; fwd=miss"),
        (_, Freshness::Stale { past, cause, .. }) => {
            let detail = match cause {
                StaleCause::Refreshing => "refreshing",
                StaleCause::TimedOut => "timed-out",
                _ => "failed",
            };
            // Less than a second ago is not "now": 0 would be fresh to the letter.
            let past = past.as_secs().max(1);
            let text = format!("derp-kv; hit; ttl=-{past}; detail={detail}");
            HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("derp-kv; hit"))
        }
        (Source::Joined, _) => HeaderValue::from_static("derp-kv; fwd=miss; collapsed"),
        _ => HeaderValue::from_static("derp-kv; hit"),
    }
}
