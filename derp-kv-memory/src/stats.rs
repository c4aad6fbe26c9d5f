//! What a store has done so far, and what it holds.

use crate::keyspace::{Keyspace, SHARDS};

/// What a store has done since it was made, and what it holds now:
/// [`MemoryStore::stats`](crate::MemoryStore::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Keys whose value was asked for and was there: by `get`, `get_with_ttl` and for each key of
    /// `mget`, whoever called them. A helper that looks twice counts twice, as `guarded_get` does
    /// before it computes.
    pub hits: u64,
    /// Keys whose value was asked for and was absent.
    pub misses: u64,
    /// Entries whose memory was given back because their TTL had passed. One that is written over,
    /// deleted or evicted after its TTL and before its turn is not among them.
    pub expired: u64,
    /// Cached values that made room for others, under a memory bound.
    pub evictions: u64,
    /// Entries, those included that have expired and whose memory was not given back yet.
    pub entries: usize,
    /// The bytes that they take, by the estimate that
    /// [`max_bytes`](crate::MemoryConfig::max_bytes) goes by.
    pub bytes: usize,
}

impl MemoryStats {
    /// Shard by shard, while others read and write.
    ///
    /// What was added is read first and what was removed last, so that a write in between hides an
    /// eviction for now and never makes one up.
    pub(crate) fn of(keyspace: &Keyspace) -> Self {
        let mut stats = Self { bytes: keyspace.regions.budget.used(), ..Self::default() };
        let mut added = 0;
        for index in 0..SHARDS {
            let shard = keyspace.shard(index).read();
            stats.hits += shard.counts.hits();
            stats.misses += shard.counts.misses();
            stats.expired += shard.counts.expired;
            stats.entries += shard.pinned().len();
            added += shard.counts.cached_added;
        }
        if let Some(evictable) = &keyspace.regions.evictable {
            let held = evictable.held();
            let removed = |index| keyspace.shard(index).read().counts.cached_removed;
            let removed: u64 = (0..SHARDS).map(removed).sum();
            let evicted = added.saturating_sub(removed).saturating_sub(held.entries);
            stats.evictions = evictable.evicted_by_now(evicted);
            stats.entries += usize::try_from(held.entries).unwrap_or(usize::MAX);
            stats.bytes += usize::try_from(held.bytes).unwrap_or(usize::MAX);
        }
        stats
    }
}
