use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use hashbrown::HashTable;

use crate::clock::Deadline;
use crate::waiters::Waiters;

/// What a record takes beside its key and value: the table's slot at its mean load, the heap's
/// node, and the allocator's headers.
pub(crate) const RECORD_OVERHEAD: usize = 144;

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
/// when their time comes, and the heap is made anew before they are the greater part of it.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    records: HashTable<Record>,
    deadlines: BinaryHeap<Reverse<(Deadline, u64)>>,
    expiring: usize,
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
        let mut replaced = 0;
        match self.records.find_mut(hash, |record| *record.key == *key) {
            Some(record) => {
                replaced = record.size();
                self.expiring -= usize::from(record.deadline.is_some());
                record.value = value;
                record.deadline = deadline;
            }
            None => {
                let record = Record { key: key.into(), value, deadline };
                self.records.insert_unique(hash, record, |record| rehash(&record.key));
            }
        }
        if let Some(deadline) = deadline {
            self.expiring += 1;
            self.track(deadline, hash, rehash);
        }
        replaced
    }

    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Record> {
        let entry = self.records.find_entry(hash, |record| *record.key == *key).ok()?;
        let (record, _) = entry.remove();
        self.expiring -= usize::from(record.deadline.is_some());
        Some(record)
    }

    fn track(&mut self, deadline: Deadline, hash: u64, rehash: impl Fn(&[u8]) -> u64) {
        if self.deadlines.len() >= 64 && self.deadlines.len() >= 2 * self.expiring {
            let live = self.records.iter().filter_map(|record| {
                record.deadline.map(|deadline| Reverse((deadline, rehash(&record.key))))
            });
            // The record that is being tracked is in the table already.
            self.deadlines = live.collect();
        } else {
            self.deadlines.push(Reverse((deadline, hash)));
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
        if taken > 0 && self.records.is_empty() && self.deadlines.is_empty() {
            self.records = HashTable::new();
            self.deadlines = BinaryHeap::new();
        }
        (taken, freed)
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }
}
