use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use hashbrown::HashTable;

use crate::clock::Deadline;
use crate::waiters::Waiters;

/// What a record takes beside its key and value: the table's slot at its mean load, the heap's
/// node, and the allocator's headers.
pub(crate) const RECORD_OVERHEAD: usize = 144;

/// Up to this many nodes of `deadlines`, stale ones among them do not matter.
const STALE_NODES: usize = 64;

/// Up to this many places, empty ones do not matter.
const IDLE_PLACES: usize = 64;

/// A pinned record.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) key: Box<[u8]>,
    pub(crate) value: Bytes,
    pub(crate) deadline: Option<Deadline>,
}

impl Record {
    pub(crate) fn size(&self) -> usize {
        record_size(&self.key, &self.value)
    }
}

pub(crate) fn record_size(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + RECORD_OVERHEAD
}

/// One part of the keyspace: its pinned records, their deadlines, and who waits for a change.
///
/// `deadlines` may hold nodes of records that were rewritten or deleted since. They are skipped
/// when their time comes, and taken out before they are the greater part of the heap.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    records: HashTable<Record>,
    deadlines: BinaryHeap<Reverse<(Deadline, u64)>>,
    expiring: usize,
    /// Writes to the cached region under this shard's lock.
    pub(crate) cached_writes: u32,
    pub(crate) waiters: Waiters,
}

impl Shard {
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<&Record> {
        self.records.find(hash, |record| *record.key == *key)
    }

    /// Writes a record and returns the size of the one it replaced.
    pub(crate) fn put(
        &mut self,
        hash: u64,
        key: &[u8],
        value: Bytes,
        deadline: Option<Deadline>,
        rehash: impl Fn(&[u8]) -> u64,
    ) -> usize {
        let (mut replaced, mut before) = (0, None);
        match self.records.find_mut(hash, |record| *record.key == *key) {
            Some(record) => {
                replaced = record.size();
                before = record.deadline;
                record.value = value;
                record.deadline = deadline;
            }
            None => {
                let record = Record { key: key.into(), value, deadline };
                self.records.insert_unique(hash, record, |record| rehash(&record.key));
            }
        }
        self.expiring += usize::from(deadline.is_some());
        self.expiring -= usize::from(before.is_some());
        // A record that keeps its deadline, as a counter does, has its node already.
        if let Some(deadline) = deadline.filter(|_| deadline != before) {
            self.deadlines.push(Reverse((deadline, hash)));
            if self.deadlines.len() > STALE_NODES.max(2 * self.expiring) {
                self.drop_stale_nodes(rehash);
            }
        }
        replaced
    }

    pub(crate) fn remove(
        &mut self,
        hash: u64,
        key: &[u8],
        rehash: impl Fn(&[u8]) -> u64,
    ) -> Option<Record> {
        let entry = self.records.find_entry(hash, |record| *record.key == *key).ok()?;
        let (record, _) = entry.remove();
        self.expiring -= usize::from(record.deadline.is_some());
        self.shrink(rehash);
        Some(record)
    }

    /// Costs what the heap holds, and not what the table holds: most records may have no deadline.
    fn drop_stale_nodes(&mut self, rehash: impl Fn(&[u8]) -> u64) {
        let mut nodes = std::mem::take(&mut self.deadlines).into_vec();
        // A deadline that was left and taken again has two nodes.
        nodes.sort_unstable();
        nodes.dedup();
        nodes.retain(|Reverse((deadline, hash))| {
            let due = |record: &Record| {
                record.deadline == Some(*deadline) && rehash(&record.key) == *hash
            };
            self.records.find(*hash, due).is_some()
        });
        self.deadlines = nodes.into();
        self.shrink(rehash);
    }

    /// Gives room back where less than an eighth of it is used, so that each record pays for the
    /// moves of a few.
    fn shrink(&mut self, rehash: impl Fn(&[u8]) -> u64) {
        let idle = |used: usize, places: usize| places > IDLE_PLACES && used < places / 8;
        if idle(self.records.len(), self.records.capacity()) {
            self.records.shrink_to(2 * self.records.len(), |record| rehash(&record.key));
        }
        if idle(self.deadlines.len(), self.deadlines.capacity()) {
            self.deadlines.shrink_to(2 * self.deadlines.len());
        }
    }

    /// Looks at no more than `budget` due deadlines, and removes the records that they end.
    /// Returns how many deadlines it took off the heap, and the bytes freed.
    pub(crate) fn sweep(
        &mut self,
        now: u64,
        budget: usize,
        rehash: impl Fn(&[u8]) -> u64,
    ) -> (usize, usize) {
        let (mut taken, mut freed) = (0, 0);
        while taken < budget {
            match self.deadlines.peek() {
                Some(Reverse((deadline, _))) if deadline.passed(now) => {}
                _ => break,
            }
            let Some(Reverse((deadline, hash))) = self.deadlines.pop() else { break };
            taken += 1;
            // The table compares a few bits of the hash only: another record of the same moment
            // must be left to its own node, or its node would be spent on nothing.
            let due =
                |record: &Record| record.deadline == Some(deadline) && rehash(&record.key) == hash;
            if let Ok(entry) = self.records.find_entry(hash, due) {
                freed += entry.remove().0.size();
                self.expiring -= 1;
            }
        }
        if taken > 0 {
            self.shrink(rehash);
        }
        (taken, freed)
    }

    pub(crate) fn records(&self) -> impl ExactSizeIterator<Item = &Record> {
        self.records.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use derp_kv_core::Ttl;

    use super::*;

    fn hash(key: &[u8]) -> u64 {
        key.iter()
            .fold(7, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    }

    fn deadline(millis: u64) -> Deadline {
        Deadline::after(0, Ttl::new(Duration::from_millis(millis)).unwrap())
    }

    fn put(shard: &mut Shard, key: u32, deadline: Option<Deadline>) {
        let key = key.to_be_bytes();
        shard.put(hash(&key), &key, Bytes::new(), deadline, hash);
    }

    #[test]
    fn a_record_that_keeps_its_deadline_adds_no_node() {
        let mut shard = Shard::default();
        for _ in 0..1_000 {
            put(&mut shard, 1, Some(deadline(5)));
        }
        assert_eq!(shard.deadlines.len(), 1);
    }

    #[test]
    fn rewritten_and_deleted_records_leave_few_nodes() {
        let mut shard = Shard::default();
        for round in 0..100_000_u64 {
            // Back and forth, so that equal nodes arise as well.
            put(&mut shard, 1, Some(deadline(1 + round % 7)));
            put(&mut shard, 2, Some(deadline(1 + round)));
            shard.remove(hash(&2_u32.to_be_bytes()), &2_u32.to_be_bytes(), hash);
            assert!(shard.deadlines.len() <= STALE_NODES, "{} nodes", shard.deadlines.len());
        }
        let (_, freed) = shard.sweep(deadline(7).remaining(0).as_nanos() as u64, usize::MAX, hash);
        assert!(freed > 0 && shard.records.is_empty());
    }

    #[test]
    fn a_few_lasting_records_do_not_keep_the_room_of_many_expired_ones() {
        let mut shard = Shard::default();
        for key in 0..20_000 {
            put(&mut shard, key, (key > 10).then(|| deadline(5)));
        }
        let now = deadline(5).remaining(0).as_nanos() as u64;
        let mut steps = 0;
        while shard.sweep(now, 2, hash).0 > 0 {
            steps += 1;
        }
        assert!(steps > 5_000, "all at once");
        assert_eq!(shard.records.len(), 11);
        assert!(shard.records.capacity() < 256, "{}", shard.records.capacity());
        assert!(shard.deadlines.capacity() < 256, "{}", shard.deadlines.capacity());
    }

    #[test]
    fn deleted_records_give_their_room_back() {
        let mut shard = Shard::default();
        for key in 0..20_000 {
            put(&mut shard, key, None);
        }
        for key in 11..20_000_u32 {
            shard.remove(hash(&key.to_be_bytes()), &key.to_be_bytes(), hash);
        }
        assert!(shard.records.capacity() < 256, "{}", shard.records.capacity());
        assert!(
            (0..11_u32)
                .all(|key| { shard.find(hash(&key.to_be_bytes()), &key.to_be_bytes()).is_some() })
        );
    }
}
