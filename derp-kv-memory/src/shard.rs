//! One part of the keyspace: what its lock guards.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{Deadline, Now};
use crate::counts::Counts;
use crate::deadlines::{Deadlines, FEW_NODES};
use crate::table::{Keyed, Table};
use crate::waiters::Waiters;

/// What a pinned entry takes beside its key and value: the table's slot at its mean load, the
/// heap's node, and the allocator's headers.
const ENTRY_OVERHEAD: usize = 144;

/// A key and its value, which is never evicted.
#[derive(Debug)]
pub(crate) struct PinnedEntry {
    pub(crate) key: Box<[u8]>,
    pub(crate) value: Bytes,
    pub(crate) deadline: Option<Deadline>,
}

impl PinnedEntry {
    pub(crate) fn size(&self) -> usize {
        pinned_size(&self.key, &self.value)
    }

    /// Writes a value into the place of the old one, where that is as long and nobody reads it.
    fn overwrite(&mut self, value: &[u8]) -> bool {
        match std::mem::take(&mut self.value).try_into_mut() {
            Ok(mut place) => {
                let fits = place.len() == value.len();
                if fits {
                    place.copy_from_slice(value);
                }
                self.value = place.freeze();
                fits
            }
            Err(read) => {
                self.value = read;
                false
            }
        }
    }
}

impl Keyed for PinnedEntry {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }
}

pub(crate) fn pinned_size(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY_OVERHEAD
}

/// The pinned entries of a shard, their deadlines and those of the cached values, and who waits for
/// a change of one of its keys.
///
/// Stale nodes of the deadlines are skipped when their time comes, and taken out before they are the
/// greater part of them.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pinned: Table<PinnedEntry>,
    deadlines: Deadlines<u64>,
    /// By their keys, which the cached values hold as well: one that nothing else holds is stale,
    /// for its value was replaced, deleted or evicted.
    cached_deadlines: Deadlines<Arc<[u8]>>,
    /// Changes of cached values until the stale ones of their deadlines are taken out.
    cached_changes_left: usize,
    /// Writes to the evictable region under this shard's lock.
    pub(crate) cached_writes: u32,
    pub(crate) waiters: Waiters,
    pub(crate) counts: Counts,
}

impl Shard {
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<&PinnedEntry> {
        self.pinned.find(hash, key)
    }

    /// Writes a pinned entry and returns the size of the one it replaced.
    pub(crate) fn put(
        &mut self,
        hash: u64,
        key: &[u8],
        mut value: Bytes,
        deadline: Option<Deadline>,
        rehash: impl Fn(&[u8]) -> u64,
    ) -> usize {
        let replaced = self.pinned.change(hash, key, |entry| {
            let replaced = (entry.size(), entry.deadline);
            entry.value = std::mem::take(&mut value);
            entry.deadline = deadline;
            replaced
        });
        if replaced.is_none() {
            self.pinned.insert_new(hash, PinnedEntry { key: key.into(), value, deadline }, &rehash);
        }
        let (size, before) = replaced.unwrap_or_default();
        self.redated(hash, before, deadline, rehash);
        size
    }

    /// Writes a pinned entry without an allocation, where it replaces one of the same length that
    /// nobody reads; tells whether it did.
    pub(crate) fn overwrite(
        &mut self,
        hash: u64,
        key: &[u8],
        value: &[u8],
        deadline: Option<Deadline>,
        rehash: impl Fn(&[u8]) -> u64,
    ) -> bool {
        let before = self.pinned.change(hash, key, |entry| {
            let done = entry.overwrite(value);
            done.then(|| std::mem::replace(&mut entry.deadline, deadline))
        });
        let Some(before) = before.flatten() else { return false };
        self.redated(hash, before, deadline, rehash);
        true
    }

    fn redated(
        &mut self,
        hash: u64,
        before: Option<Deadline>,
        deadline: Option<Deadline>,
        rehash: impl Fn(&[u8]) -> u64,
    ) {
        // An entry that keeps its deadline, as a counter does, has its node already.
        if let Some(deadline) = deadline.filter(|_| deadline != before) {
            self.deadlines.push(deadline, hash);
            self.drop_stale_nodes(rehash);
        }
    }

    pub(crate) fn remove(
        &mut self,
        hash: u64,
        key: &[u8],
        rehash: impl Fn(&[u8]) -> u64,
    ) -> Option<PinnedEntry> {
        let entry = self.pinned.remove(hash, key)?;
        self.drop_stale_nodes(&rehash);
        self.shrink(rehash);
        Some(entry)
    }

    /// Takes the stale nodes out where they are the greater part. That costs what the heap holds,
    /// and not what the table holds: most entries may have no deadline.
    fn drop_stale_nodes(&mut self, rehash: impl Fn(&[u8]) -> u64) {
        if self.deadlines.is_mostly_stale(self.pinned.expiring()) {
            let pinned = &self.pinned;
            self.deadlines
                .retain_one_of_each(|deadline, hash| pinned.has_due(*hash, deadline, &rehash));
            self.deadlines.shrink();
        }
    }

    fn shrink(&mut self, rehash: impl Fn(&[u8]) -> u64) {
        self.pinned.shrink(rehash);
        self.deadlines.shrink();
    }

    /// Looks at no more than `limit` due deadlines, and removes the entries that they end. Returns
    /// how many deadlines it took off the heap, and the bytes freed.
    pub(crate) fn sweep(
        &mut self,
        now: &Now<'_>,
        limit: usize,
        rehash: impl Fn(&[u8]) -> u64,
    ) -> (usize, usize) {
        let (mut taken, mut freed) = (0, 0);
        while taken < limit {
            let Some((deadline, hash)) = self.deadlines.pop_due(now) else { break };
            taken += 1;
            if let Some(entry) = self.pinned.remove_due(hash, deadline, &rehash) {
                freed += entry.size();
                self.counts.expired += 1;
            }
        }
        if taken > 0 {
            self.shrink(rehash);
        }
        (taken, freed)
    }

    /// Notes that a cached value changed, and that it ends now at a deadline, if it does.
    ///
    /// Evictions are not seen here, so the stale deadlines cannot be counted. They are looked for
    /// after half as many changes as there were deadlines the last time. That keeps them the lesser
    /// part, for an eviction comes with a write, if mostly of another key.
    pub(crate) fn cached_changed(&mut self, ending: Option<(Deadline, Arc<[u8]>)>) {
        if let Some((deadline, key)) = ending {
            self.cached_deadlines.push(deadline, key);
        }
        if self.cached_changes_left == 0 {
            self.cached_deadlines.retain(|key| Arc::strong_count(key) > 1);
            self.cached_deadlines.shrink();
            self.cached_changes_left = FEW_NODES.max(self.cached_deadlines.len() / 2);
        }
        self.cached_changes_left -= 1;
    }

    /// The earliest deadline of a cached value, which may be stale.
    pub(crate) fn first_cached_deadline(&self) -> Option<Deadline> {
        self.cached_deadlines.first()
    }

    /// Takes no more than `limit` due deadlines of cached values off their heap, and has the values
    /// ended that are there still: `end` tells whether one was. Returns how many deadlines it took.
    pub(crate) fn sweep_cached(
        &mut self,
        now: &Now<'_>,
        limit: usize,
        end: impl Fn(&Arc<[u8]>) -> bool,
    ) -> usize {
        let mut taken = 0;
        while taken < limit {
            let Some((_, key)) = self.cached_deadlines.pop_due(now) else { break };
            taken += 1;
            if Arc::strong_count(&key) > 1 && end(&key) {
                self.counts.expired += 1;
                self.counts.cached_removed += 1;
            }
        }
        if taken > 0 {
            self.cached_deadlines.shrink();
        }
        taken
    }

    pub(crate) fn pinned(&self) -> impl ExactSizeIterator<Item = &PinnedEntry> {
        self.pinned.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use derp_kv_core::Ttl;

    use super::*;
    use crate::clock::{Clock, ManualClock};

    fn hash(key: &[u8]) -> u64 {
        key.iter()
            .fold(7, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    }

    fn deadline(millis: u64) -> Deadline {
        let clock = Clock::Manual(ManualClock::new());
        Deadline::after(&Now::by(&clock), Ttl::new(Duration::from_millis(millis)).unwrap())
    }

    fn clock_at(millis: u64) -> Clock {
        let clock = ManualClock::new();
        clock.advance(Duration::from_millis(millis));
        Clock::Manual(clock)
    }

    fn put(shard: &mut Shard, key: u32, deadline: Option<Deadline>) {
        let key = key.to_be_bytes();
        shard.put(hash(&key), &key, Bytes::new(), deadline, hash);
    }

    #[test]
    fn an_entry_that_keeps_its_deadline_adds_no_node() {
        let mut shard = Shard::default();
        for _ in 0..1_000 {
            put(&mut shard, 1, Some(deadline(5)));
        }
        assert_eq!(shard.deadlines.len(), 1);
    }

    #[test]
    fn rewritten_and_deleted_entries_leave_few_nodes() {
        let mut shard = Shard::default();
        for round in 0..100_000_u64 {
            // Back and forth, so that equal nodes arise as well.
            put(&mut shard, 1, Some(deadline(1 + round % 7)));
            put(&mut shard, 2, Some(deadline(1 + round)));
            shard.remove(hash(&2_u32.to_be_bytes()), &2_u32.to_be_bytes(), hash);
            assert!(shard.deadlines.len() <= FEW_NODES, "{} nodes", shard.deadlines.len());
        }
        let (_, freed) = shard.sweep(&Now::by(&clock_at(7)), usize::MAX, hash);
        assert!(freed > 0 && shard.pinned().len() == 0);
    }

    #[test]
    fn a_few_lasting_entries_do_not_keep_the_memory_of_many_expired_ones() {
        let mut shard = Shard::default();
        for key in 0..20_000 {
            put(&mut shard, key, (key > 10).then(|| deadline(5)));
        }
        let clock = clock_at(5);
        let mut steps = 0;
        while shard.sweep(&Now::by(&clock), 2, hash).0 > 0 {
            steps += 1;
        }
        assert!(steps > 5_000, "all at once");
        assert_eq!(shard.pinned().len(), 11);
        assert!(shard.pinned.capacity() < 256, "{}", shard.pinned.capacity());
        assert!(shard.deadlines.capacity() < 256, "{}", shard.deadlines.capacity());
    }

    #[test]
    fn deleted_entries_give_their_memory_back() {
        let mut shard = Shard::default();
        for key in 0..20_000 {
            put(&mut shard, key, None);
        }
        for key in 11..20_000_u32 {
            shard.remove(hash(&key.to_be_bytes()), &key.to_be_bytes(), hash);
        }
        assert!(shard.pinned.capacity() < 256, "{}", shard.pinned.capacity());
        assert!(
            (0..11_u32)
                .all(|key| { shard.find(hash(&key.to_be_bytes()), &key.to_be_bytes()).is_some() })
        );
    }

    #[test]
    fn deleted_entries_give_the_memory_of_their_deadlines_back() {
        let mut shard = Shard::default();
        for key in 0..20_000 {
            put(&mut shard, key, Some(deadline(24 * 60 * 60 * 1_000)));
        }
        for key in 11..20_000_u32 {
            shard.remove(hash(&key.to_be_bytes()), &key.to_be_bytes(), hash);
        }
        assert!(shard.deadlines.len() <= FEW_NODES, "{} nodes", shard.deadlines.len());
        assert!(shard.deadlines.capacity() < 256, "{}", shard.deadlines.capacity());
        let clock = clock_at(24 * 60 * 60 * 1_000);
        shard.sweep(&Now::by(&clock), usize::MAX, hash);
        assert_eq!(shard.pinned().len(), 0, "a node of a lasting entry is gone");
    }
}
