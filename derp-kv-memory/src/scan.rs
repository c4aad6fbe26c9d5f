//! `scan`: a stream over the shards that copies the keys of one at a time.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use derp_kv_core::Result;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::stream;

use crate::evictable::ScanLog;
use crate::keyspace::{Inner, SHARDS};
use crate::slot::Seen;

/// After so many keys, matching or not, other tasks get their turn.
const KEYS_BEFORE_REST: usize = 256;

/// The keys of cached values come first, then the pinned ones: a key may be promoted from the
/// first region to the second, never back while it lives, so none is missed on its way. Last
/// come the keys that were renewed in the first region meanwhile. Other tasks get their turn now
/// and then, also where nothing is found.
pub(crate) fn scan<'a>(inner: &'a Inner, prefix: &[u8]) -> BoxStream<'a, Result<Bytes>> {
    let prefix: Arc<[u8]> = prefix.into();
    // Empty handed: the scan takes a rest.
    let rest = |key: Option<Bytes>| async move {
        if key.is_none() {
            tokio::task::yield_now().await;
        }
        key.map(Ok)
    };
    let renewals = inner.cached.as_ref().map(|cached| cached.watch_renewals());
    let cached = cached_keys(inner, prefix.clone());
    let pinned = {
        let prefix = prefix.clone();
        (0..SHARDS).flat_map(move |index| pinned_keys(inner, index, &prefix))
    };
    let renewed =
        std::iter::once(renewals).flatten().flat_map(move |log| renewed_keys(&log, &prefix));
    stream::iter(cached.chain(pinned).chain(renewed.map(Some))).filter_map(rest).boxed()
}

/// `None` is a place to rest at.
fn cached_keys(
    inner: &Inner,
    prefix: Arc<[u8]>,
) -> impl Iterator<Item = Option<Bytes>> + Send + '_ {
    let entries = inner.cached.iter().flat_map(|cached| cached.iter());
    entries.enumerate().flat_map(move |(number, (key, entry))| {
        let live = key.starts_with(&prefix)
            && Seen::live(Cow::Borrowed(&entry.value), entry.deadline, || inner.clock.now())
                .is_some();
        let rests = number % KEYS_BEFORE_REST == KEYS_BEFORE_REST - 1;
        [live.then_some(Some(key)), rests.then_some(None)].into_iter().flatten()
    })
}

/// `None` is a place to rest at.
fn pinned_keys(inner: &Inner, index: usize, prefix: &[u8]) -> Vec<Option<Bytes>> {
    let shard = inner.shard(index).read();
    let live = |record: &&crate::pinned::Record| {
        record.key.starts_with(prefix)
            && Seen::live(Cow::Borrowed(&record.value), record.deadline, || inner.clock.now())
                .is_some()
    };
    let keys = shard.records().filter(live);
    let keys = keys.map(|record| Some(Bytes::copy_from_slice(&record.key)));
    // A smaller store is through before anybody waits for long.
    let rest = (shard.records().len() >= KEYS_BEFORE_REST).then_some(None);
    keys.chain(rest).collect()
}

fn renewed_keys(log: &ScanLog, prefix: &[u8]) -> Vec<Bytes> {
    let keys = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect()
}
