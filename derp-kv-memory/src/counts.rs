//! What a shard counts, for [`MemoryStats`](crate::MemoryStats).

use std::sync::atomic::{AtomicU64, Ordering};

/// Readers share the shard's lock, so what they count is atomic. Everything else is counted under the
/// write lock.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    /// Entries that a sweep has removed.
    pub(crate) expired: u64,
    /// Keys that came to the region of the cached values, and keys that a caller or a sweep took out of
    /// it. The others that are not there any more were evicted: moka would tell of an eviction only
    /// with a lock for each key, which makes a write a third more expensive.
    pub(crate) cached_added: u64,
    pub(crate) cached_removed: u64,
}

impl Counts {
    /// Counts a value that was asked for.
    pub(crate) fn asked(&self, found: bool) {
        let count = if found { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(crate) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }
}
