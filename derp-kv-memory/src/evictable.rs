//! The region of the cached values, which may be evicted: a moka cache.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::clock::Deadline;

/// Above this, eviction must not wait until moka's own batch of 64 writes is full.
const LARGE_VALUE: usize = 4 * 1024;

/// What moka keeps for an entry beside its key and value.
const VALUE_OVERHEAD: usize = 400;

#[derive(Clone, Debug)]
pub(crate) struct CachedValue {
    pub(crate) value: Bytes,
    pub(crate) deadline: Option<Deadline>,
}

/// The region of values that may be evicted. Callers hold the lock of the key's shard for every
/// call but the scan's; moka's own operations on one key are not ordered with each other.
pub(crate) struct Evictable {
    entries: Cache<Bytes, CachedValue>,
    scans: Mutex<Vec<Weak<ScanLog>>>,
}

/// Keys that were taken out and put in anew while a scan ran, which may have missed them.
pub(crate) type ScanLog = Mutex<Vec<Bytes>>;

impl Evictable {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let entries = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|key: &Bytes, entry: &CachedValue| {
                u32::try_from(cached_size(key, &entry.value)).unwrap_or(u32::MAX)
            })
            // The default policy may refuse a new entry in favour of an old one.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { entries, scans: Mutex::default() }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<CachedValue> {
        self.entries.get(key)
    }

    /// `renew` takes a present entry out and puts it in anew.
    pub(crate) fn put(&self, key: &[u8], value: Bytes, deadline: Option<Deadline>, renew: bool) {
        let large = value.len() > LARGE_VALUE;
        if renew && self.entries.contains_key(key) {
            self.tell_scans(key);
            self.entries.invalidate(key);
        }
        self.entries.insert(Bytes::copy_from_slice(key), CachedValue { value, deadline });
        if large {
            self.entries.run_pending_tasks();
        }
    }

    pub(crate) fn remove(&self, key: &[u8]) {
        self.entries.invalidate(key);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Bytes, CachedValue)> + Send + '_ {
        self.entries.iter().map(|(key, entry)| (Bytes::clone(&key), entry))
    }

    /// A log that is told of renewed keys for as long as the caller keeps it.
    pub(crate) fn watch_renewals(&self) -> Arc<ScanLog> {
        let log = Arc::new(ScanLog::default());
        let mut scans = self.scans.lock().unwrap_or_else(PoisonError::into_inner);
        scans.retain(|scan| scan.strong_count() > 0);
        scans.push(Arc::downgrade(&log));
        log
    }

    fn tell_scans(&self, key: &[u8]) {
        let scans = self.scans.lock().unwrap_or_else(PoisonError::into_inner);
        for log in scans.iter().filter_map(Weak::upgrade) {
            let mut keys = log.lock().unwrap_or_else(PoisonError::into_inner);
            keys.push(Bytes::copy_from_slice(key));
        }
    }
}

impl fmt::Debug for Evictable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evictable").field("entries", &self.entries.entry_count()).finish()
    }
}

pub(crate) fn cached_size(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + VALUE_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_are_told_of_a_key_that_is_taken_out_and_put_in_anew() {
        let cached = Evictable::new(1 << 20);
        let (early, dropped) = (cached.watch_renewals(), cached.watch_renewals());
        drop(dropped);
        for renew in [true, false, true] {
            cached.put(b"hot", Bytes::new(), None, renew);
        }
        assert_eq!(*early.lock().unwrap(), [&b"hot"[..]], "a new entry is no renewal");
        let late = cached.watch_renewals();
        cached.put(b"hot", Bytes::new(), None, false);
        assert!(late.lock().unwrap().is_empty());
        assert!(cached.get(b"hot").is_some());
    }
}
