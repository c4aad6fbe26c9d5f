//! `scan`: a stream over the shards that copies the keys of one at a time.

use std::sync::Arc;

use bytes::Bytes;
use derp_kv_core::Result;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::stream;

use crate::cached::ScanLog;
use crate::inner::{Inner, SHARDS};
use crate::slot::Seen;

/// The keys of cached values come first, then the pinned ones: a key may be promoted from the
/// first region to the second, never back while it lives, so none is missed on its way. Last
/// come the keys that were renewed in the first region meanwhile.
pub(crate) fn scan<'a>(inner: &'a Inner, prefix: &[u8]) -> BoxStream<'a, Result<Bytes>> {
    let prefix: Arc<[u8]> = prefix.into();
    let renewals = inner.cached.as_ref().map(|cached| cached.watch_renewals());
    let cached = cached_keys(inner, prefix.clone());
    let pinned = {
        let prefix = prefix.clone();
        (0..SHARDS).flat_map(move |index| pinned_keys(inner, index, &prefix))
    };
    let renewed =
        std::iter::once(renewals).flatten().flat_map(move |log| renewed_keys(&log, &prefix));
    stream::iter(cached.chain(pinned).chain(renewed).map(Ok)).boxed()
}

fn cached_keys(inner: &Inner, prefix: Arc<[u8]>) -> impl Iterator<Item = Bytes> + Send + '_ {
    let entries = inner.cached.iter().flat_map(|cached| cached.iter());
    entries.filter_map(move |(key, entry)| {
        let matches = key.starts_with(&prefix);
        let live =
            matches && Seen::live(&entry.value, entry.deadline, || inner.clock.now()).is_some();
        live.then_some(key)
    })
}

fn pinned_keys(inner: &Inner, index: usize, prefix: &[u8]) -> Vec<Bytes> {
    let shard = inner.shard(index).read();
    let live = |record: &&crate::shard::Record| {
        record.key.starts_with(prefix)
            && Seen::live(&record.value, record.deadline, || inner.clock.now()).is_some()
    };
    shard.records().filter(live).map(|record| Bytes::copy_from_slice(&record.key)).collect()
}

fn renewed_keys(log: &ScanLog, prefix: &[u8]) -> Vec<Bytes> {
    let keys = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect()
}
