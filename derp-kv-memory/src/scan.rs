//! `scan`: a stream over the shards that copies the keys of one at a time.

use std::sync::Arc;

use bytes::Bytes;
use derp_kv_core::Result;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::stream;

use crate::evictable::ScanLog;
use crate::keyspace::{Keyspace, SHARDS};
use crate::shard::PinnedEntry;

/// After so many keys, matching or not, other tasks get their turn.
const KEYS_BEFORE_REST: usize = 256;

/// The keys of cached values come first, then the pinned ones: a key may be promoted from the
/// first region to the second, never back while it lives, so none is missed on its way. Last
/// come the keys that were renewed in the first region meanwhile. Other tasks get their turn now
/// and then, also where nothing is found.
pub(crate) fn scan<'a>(keyspace: &'a Keyspace, prefix: &[u8]) -> BoxStream<'a, Result<Bytes>> {
    let prefix: Arc<[u8]> = prefix.into();
    // Empty handed: the scan takes a rest.
    let rest = |key: Option<Bytes>| async move {
        if key.is_none() {
            tokio::task::yield_now().await;
        }
        key.map(Ok)
    };
    let renewals = keyspace.regions.evictable.as_ref().map(|cached| cached.watch_renewals());
    let cached = cached_keys(keyspace, prefix.clone());
    let pinned = {
        let prefix = prefix.clone();
        (0..SHARDS).flat_map(move |index| pinned_keys(keyspace, index, &prefix))
    };
    let renewed =
        std::iter::once(renewals).flatten().flat_map(move |log| renewed_keys(&log, &prefix));
    stream::iter(cached.chain(pinned).chain(renewed.map(Some))).filter_map(rest).boxed()
}

/// `None` is a place to rest at.
fn cached_keys(
    keyspace: &Keyspace,
    prefix: Arc<[u8]>,
) -> impl Iterator<Item = Option<Bytes>> + Send + '_ {
    let entries = keyspace.regions.evictable.iter().flat_map(|cached| cached.iter());
    entries.enumerate().flat_map(move |(number, (key, entry))| {
        let live = key.starts_with(&prefix) && keyspace.regions.is_live(entry.deadline);
        let rests = number % KEYS_BEFORE_REST == KEYS_BEFORE_REST - 1;
        [live.then_some(Some(key)), rests.then_some(None)].into_iter().flatten()
    })
}

/// `None` is a place to rest at.
fn pinned_keys(keyspace: &Keyspace, index: usize, prefix: &[u8]) -> Vec<Option<Bytes>> {
    let shard = keyspace.shard(index).read();
    let live = |entry: &&PinnedEntry| {
        entry.key.starts_with(prefix) && keyspace.regions.is_live(entry.deadline)
    };
    let keys = shard.pinned().filter(live);
    let keys = keys.map(|entry| Some(Bytes::copy_from_slice(&entry.key)));
    // A smaller store is through before anybody waits for long.
    let rest = (shard.pinned().len() >= KEYS_BEFORE_REST).then_some(None);
    keys.chain(rest).collect()
}

fn renewed_keys(log: &ScanLog, prefix: &[u8]) -> Vec<Bytes> {
    let keys = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect()
}
