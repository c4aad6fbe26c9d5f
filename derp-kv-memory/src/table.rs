//! A hash table of entries that may end at a deadline.

use hashbrown::HashTable;

use crate::clock::Deadline;

/// Up to this capacity, a collection that is nearly empty keeps its memory.
const SMALL_CAPACITY: usize = 64;

/// What a [`Table`] holds: something with a key and a deadline.
pub(crate) trait Keyed {
    fn key(&self) -> &[u8];
    fn deadline(&self) -> Option<Deadline>;
}

/// Entries by the hash of their key, which the caller computes. Every method that may move entries
/// is given the hash function.
#[derive(Debug)]
pub(crate) struct Table<E> {
    entries: HashTable<E>,
    /// How many of the entries have a deadline.
    expiring: usize,
}

impl<E> Default for Table<E> {
    fn default() -> Self {
        Self { entries: HashTable::new(), expiring: 0 }
    }
}

impl<E: Keyed> Table<E> {
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<&E> {
        self.entries.find(hash, |entry| *entry.key() == *key)
    }

    /// Gives the entry of `key` to `change`, if there is one.
    pub(crate) fn change<T>(
        &mut self,
        hash: u64,
        key: &[u8],
        change: impl FnOnce(&mut E) -> T,
    ) -> Option<T> {
        let entry = self.entries.find_mut(hash, |entry| *entry.key() == *key)?;
        self.expiring -= usize::from(entry.deadline().is_some());
        let changed = change(entry);
        self.expiring += usize::from(entry.deadline().is_some());
        Some(changed)
    }

    /// Inserts an entry whose key is not there.
    pub(crate) fn insert_new(&mut self, hash: u64, entry: E, rehash: impl Fn(&[u8]) -> u64) {
        self.expiring += usize::from(entry.deadline().is_some());
        self.entries.insert_unique(hash, entry, |entry| rehash(entry.key()));
    }

    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<E> {
        self.remove_where(hash, |entry| *entry.key() == *key)
    }

    /// Removes the entry that ends at `deadline` and whose key has this hash. The table compares a
    /// few bits of the hash only, and many entries may end at one moment.
    pub(crate) fn remove_due(
        &mut self,
        hash: u64,
        deadline: Deadline,
        rehash: impl Fn(&[u8]) -> u64,
    ) -> Option<E> {
        self.remove_where(hash, |entry| {
            entry.deadline() == Some(deadline) && rehash(entry.key()) == hash
        })
    }

    fn remove_where(&mut self, hash: u64, matches: impl FnMut(&E) -> bool) -> Option<E> {
        let (entry, _) = self.entries.find_entry(hash, matches).ok()?.remove();
        self.expiring -= usize::from(entry.deadline().is_some());
        Some(entry)
    }

    /// Whether an entry ends at `deadline` whose key has this hash.
    pub(crate) fn has_due(
        &self,
        hash: u64,
        deadline: Deadline,
        rehash: impl Fn(&[u8]) -> u64,
    ) -> bool {
        let due = |entry: &E| entry.deadline() == Some(deadline) && rehash(entry.key()) == hash;
        self.entries.find(hash, due).is_some()
    }

    /// How many of the entries have a deadline.
    pub(crate) fn expiring(&self) -> usize {
        self.expiring
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &E> {
        self.entries.iter()
    }

    /// Gives memory back where little of it is used.
    pub(crate) fn shrink(&mut self, rehash: impl Fn(&[u8]) -> u64) {
        if is_mostly_unused(self.entries.len(), self.entries.capacity()) {
            self.entries.shrink_to(2 * self.entries.len(), |entry| rehash(entry.key()));
        }
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.entries.capacity()
    }
}

/// Less than an eighth is used, so that each removal pays for the moves of a few entries.
pub(crate) fn is_mostly_unused(used: usize, capacity: usize) -> bool {
    capacity > SMALL_CAPACITY && used < capacity / 8
}
