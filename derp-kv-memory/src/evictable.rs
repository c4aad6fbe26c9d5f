//! The region of the cached values, which may be evicted: a moka cache.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use moka::Equivalent;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::clock::Deadline;

/// moka applies its writes late: until then what they add is not counted, and nothing is evicted
/// for it. So large a part of the bound, and no more than so many bytes, may be left to apply.
const PART_UNAPPLIED: u64 = 32;
const MOST_UNAPPLIED: u64 = 1 << 17;

/// So many writes, however small, are applied together. With 64, moka would do so itself, while its
/// caller holds the lock of a shard.
const WRITES_APPLIED_TOGETHER: u64 = 32;

/// What moka keeps for an entry beside its key and value.
const VALUE_OVERHEAD: usize = 400;

/// What a deadline takes beside a second copy of the key: the nodes of the shard's heap, stale ones
/// included, and the headers of the copy.
const DEADLINE_OVERHEAD: usize = 120;

#[derive(Clone, Debug)]
pub(crate) struct CachedValue {
    pub(crate) value: Bytes,
    /// The deadline, and the key as the heap of its shard has it.
    pub(crate) ending: Option<(Deadline, Arc<[u8]>)>,
}

impl CachedValue {
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.ending.as_ref().map(|(deadline, _)| *deadline)
    }

    fn size(&self, key: &[u8]) -> usize {
        cached_size(key, &self.value, self.ending.is_some())
    }
}

/// What the cache has its entries by.
#[derive(Debug, PartialEq, Eq)]
enum CacheKey {
    Entry(Bytes),
    /// Stands for a part of what is to come, so that others are evicted for it.
    Room(u64),
}

/// An entry is found by the bytes of its key, so it has their hash.
impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Entry(key) => key.hash(state),
            Self::Room(part) => part.hash(state),
        }
    }
}

impl Equivalent<CacheKey> for [u8] {
    fn equivalent(&self, key: &CacheKey) -> bool {
        matches!(key, CacheKey::Entry(entry) if **entry == *self)
    }
}

/// The region of values that may be evicted. Callers hold the lock of the key's shard for every
/// call but the scan's; moka's own operations on one key are not ordered with each other.
pub(crate) struct Evictable {
    entries: Cache<CacheKey, CachedValue>,
    max_bytes: u64,
    most_unapplied: u64,
    /// The bytes of the writes that are not applied yet, or somewhat more.
    unapplied: AtomicU64,
    /// One caller at a time makes room, and nobody counts meanwhile.
    making_room: Mutex<()>,
    /// The most evictions that were found.
    evicted: AtomicU64,
    scans: Mutex<Vec<Weak<ScanLog>>>,
}

/// What the region holds.
pub(crate) struct Held {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Keys that were taken out and put in anew while a scan ran, which may have missed them.
pub(crate) type ScanLog = Mutex<Vec<Bytes>>;

impl Evictable {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let most_unapplied = (max_bytes / PART_UNAPPLIED).clamp(1, MOST_UNAPPLIED);
        let entries = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(move |key, cached: &CachedValue| match key {
                CacheKey::Entry(key) => u32::try_from(cached.size(key)).unwrap_or(u32::MAX),
                CacheKey::Room(_) => u32::try_from(most_unapplied).unwrap_or(u32::MAX),
            })
            // The default policy may refuse a new entry in favour of an old one.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self {
            entries,
            max_bytes,
            most_unapplied,
            unapplied: AtomicU64::new(0),
            making_room: Mutex::default(),
            evicted: AtomicU64::new(0),
            scans: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<CachedValue> {
        self.entries.get(key)
    }

    /// `renew` takes a present entry out and puts it in anew. Tells whether the key was absent.
    pub(crate) fn put(&self, key: &[u8], cached: CachedValue, renew: bool) -> bool {
        let is_there = self.entries.contains_key(key);
        if renew && is_there {
            self.tell_scans(key);
            self.entries.invalidate(key);
        }
        self.entries.insert(CacheKey::Entry(Bytes::copy_from_slice(key)), cached);
        !is_there
    }

    /// Removes a value that has ended, unless another one has taken its place; tells whether it did.
    pub(crate) fn end(&self, key: &Arc<[u8]>) -> bool {
        let ending = self.get(key).and_then(|cached| cached.ending);
        ending.is_some_and(|(_, of)| Arc::ptr_eq(&of, key)) && self.remove(key)
    }

    /// Whether so many bytes are too many to be written as they come.
    pub(crate) fn is_much(&self, bytes: usize) -> bool {
        bytes as u64 > self.most_unapplied
    }

    /// Whether something is evicted for so many bytes more.
    pub(crate) fn is_full_for(&self, bytes: usize) -> bool {
        let unapplied = self.unapplied.load(Ordering::Relaxed);
        let held = self.entries.weighted_size().saturating_add(unapplied);
        held.saturating_add(bytes as u64) > self.max_bytes
    }

    /// Evicts what a write of these keys and sizes will have evicted, if that is much: otherwise moka
    /// does it in between the writes, while the shards are locked, or has a reader do it.
    pub(crate) fn make_room<'a>(&self, entries: impl Iterator<Item = (&'a [u8], usize)>) {
        let mut growth = 0;
        for (key, size) in entries {
            if size as u64 > self.max_bytes {
                // The write will be refused, and evict nothing.
                return;
            }
            let replaced = self.get(key).map_or(0, |cached| cached.size(key));
            growth += size.saturating_sub(replaced);
        }
        if !self.is_full_for(growth) {
            return;
        }
        let _alone = self.making_room.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = CachedValue { value: Bytes::new(), ending: None };
        let parts = 0..(growth as u64).min(self.max_bytes).div_ceil(self.most_unapplied);
        for part in parts.clone() {
            self.entries.insert(CacheKey::Room(part), nothing.clone());
            self.apply();
        }
        for part in parts {
            self.entries.invalidate(&CacheKey::Room(part));
        }
    }

    /// Counts a write of so many bytes, and applies what is not applied yet if it is much. No lock of
    /// a shard is held: a large value may evict many small ones.
    pub(crate) fn written(&self, bytes: usize) {
        let most = self.most_unapplied;
        let bytes = (bytes as u64).max(most / WRITES_APPLIED_TOGETHER);
        if self.unapplied.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > most {
            self.apply();
        }
    }

    /// Counts and evicts what writes have left to do.
    pub(crate) fn apply(&self) {
        self.unapplied.store(0, Ordering::Relaxed);
        self.entries.run_pending_tasks();
    }

    /// Tells whether the key was there.
    pub(crate) fn remove(&self, key: &[u8]) -> bool {
        self.entries.remove(key).is_some()
    }

    /// What is there, once all writes so far are applied.
    pub(crate) fn held(&self) -> Held {
        // What stands for something to come is no entry.
        let _alone = self.making_room.lock().unwrap_or_else(PoisonError::into_inner);
        self.apply();
        Held { entries: self.entries.entry_count(), bytes: self.entries.weighted_size() }
    }

    /// How many evictions are known, of which `found` were found just now: never fewer than before.
    pub(crate) fn evicted_by_now(&self, found: u64) -> u64 {
        self.evicted.fetch_max(found, Ordering::Relaxed).max(found)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Bytes, CachedValue)> + Send + '_ {
        self.entries.iter().filter_map(|(key, cached)| match &*key {
            CacheKey::Entry(key) => Some((key.clone(), cached)),
            CacheKey::Room(_) => None,
        })
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

pub(crate) fn cached_size(key: &[u8], value: &[u8], ends: bool) -> usize {
    let ending = if ends { key.len() + DEADLINE_OVERHEAD } else { 0 };
    key.len() + value.len() + VALUE_OVERHEAD + ending
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
            cached.put(b"hot", CachedValue { value: Bytes::new(), ending: None }, renew);
        }
        assert_eq!(*early.lock().unwrap(), [&b"hot"[..]], "a new entry is no renewal");
        let late = cached.watch_renewals();
        cached.put(b"hot", CachedValue { value: Bytes::new(), ending: None }, false);
        assert!(late.lock().unwrap().is_empty());
        assert!(cached.get(b"hot").is_some());
    }

    #[test]
    fn room_is_made_before_a_large_write_for_no_more_than_it_adds() {
        let cached = Evictable::new(4 << 20);
        let small = CachedValue { value: Bytes::new(), ending: None };
        for id in 0..20_000_u32 {
            cached.put(&id.to_be_bytes(), small.clone(), false);
            cached.written(small.size(&id.to_be_bytes()));
        }
        let large = CachedValue { value: vec![0; 2 << 20].into(), ending: None };
        let size = large.size(b"large");
        cached.make_room(std::iter::once((&b"large"[..], size)));
        cached.apply();
        let full = cached.entries.entry_count();
        assert!(!cached.is_full_for(size), "{}", cached.entries.weighted_size());
        assert!(cached.iter().count() > 4_000, "more was evicted than needed");
        cached.put(b"large", large, false);
        cached.apply();
        assert_eq!(cached.entries.entry_count(), full + 1, "the write itself evicted");
        cached.make_room(std::iter::once((&b"large"[..], size)));
        cached.apply();
        assert_eq!(cached.entries.entry_count(), full + 1, "it replaces as much as it adds");
    }
}
