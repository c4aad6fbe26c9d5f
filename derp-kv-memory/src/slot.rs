use std::borrow::Cow;

use bytes::Bytes;
use derp_kv_core::Expiry;

use crate::budget::{Refusal, Room};
use crate::clock::Deadline;
use crate::evictable::cached_size;
use crate::keyspace::Inner;
use crate::pinned::{Record, Shard, record_size};

/// moka counts the writes of an entry in 16 bits; an entry written more often can no longer be
/// evicted. One write of so many puts its entry in anew. Counting the writes of each would cost
/// every write a look at the old entry.
const WRITES_PER_RENEWAL: u64 = 1024;

/// A live value and its deadline.
pub(crate) struct Seen<'a> {
    /// Of the pinned region borrowed, of the cached one owned.
    pub(crate) value: Cow<'a, Bytes>,
    pub(crate) deadline: Option<Deadline>,
    now: u64,
}

impl<'a> Seen<'a> {
    /// `None` where the deadline has passed. The clock is read only where there is one.
    pub(crate) fn live(
        value: Cow<'a, Bytes>,
        deadline: Option<Deadline>,
        now: impl FnOnce() -> u64,
    ) -> Option<Self> {
        let now = deadline.map_or(0, |_| now());
        let passed = deadline.is_some_and(|deadline| deadline.passed(now));
        (!passed).then_some(Self { value, deadline, now })
    }

    pub(crate) fn expiry(&self) -> Expiry {
        expiry(self.deadline, self.now)
    }
}

pub(crate) fn expiry(deadline: Option<Deadline>, now: u64) -> Expiry {
    deadline.map_or(Expiry::Never, |deadline| Expiry::In(deadline.remaining(now)))
}

/// One key under its shard's write lock.
pub(crate) struct Slot<'a> {
    inner: &'a Inner,
    shard: &'a mut Shard,
    hash: u64,
    key: &'a [u8],
    pub(crate) now: u64,
}

impl<'a> Slot<'a> {
    pub(crate) fn new(
        inner: &'a Inner,
        shard: &'a mut Shard,
        hash: u64,
        key: &'a [u8],
        now: u64,
    ) -> Self {
        Self { inner, shard, hash, key, now }
    }

    pub(crate) fn look<T>(&self, f: impl FnOnce(Seen<'_>) -> T) -> Option<T> {
        self.inner.look(self.shard, self.hash, self.key, f)
    }

    pub(crate) fn is_live(&self) -> bool {
        self.look(|_| ()).is_some()
    }

    pub(crate) fn holds(&self, expected: &[u8]) -> bool {
        self.look(|seen| **seen.value == *expected).unwrap_or(false)
    }

    /// Writes a value that may be evicted, unless the key is pinned and live: then it stays so.
    pub(crate) fn write_cached(
        &mut self,
        value: &[u8],
        deadline: Option<Deadline>,
    ) -> Result<(), Refusal> {
        let room = self.cached_room(value)?;
        self.inner.reserve(room)?;
        self.write_cached_reserved(value, deadline);
        Ok(())
    }

    /// The room to reserve before [`write_cached_reserved`](Self::write_cached_reserved).
    pub(crate) fn cached_room(&self, value: &[u8]) -> Result<Room, Refusal> {
        if self.goes_to_cache() {
            let max = self.inner.max_bytes.unwrap_or(usize::MAX);
            let fits = cached_size(self.key, value) <= max;
            return if fits { Ok(Room::default()) } else { Err(Refusal::never_fits()) };
        }
        Ok(self.pinned_room(value))
    }

    pub(crate) fn write_cached_reserved(&mut self, value: &[u8], deadline: Option<Deadline>) {
        match &self.inner.cached {
            Some(cached) if self.goes_to_cache() => {
                // What is pinned under this key has expired.
                if let Some(expired) = self.take_pinned() {
                    self.inner.release(expired.size());
                }
                let renew = self.is_time_to_renew();
                cached.put(self.key, Bytes::copy_from_slice(value), deadline, renew);
                self.shard.waiters.wake(self.hash);
            }
            _ => self.put_pinned(Bytes::copy_from_slice(value), deadline),
        }
    }

    /// Writes a record that is never evicted.
    pub(crate) fn write_pinned(
        &mut self,
        value: &[u8],
        deadline: Option<Deadline>,
    ) -> Result<(), Refusal> {
        self.inner.reserve(self.pinned_room(value))?;
        self.put_pinned(Bytes::copy_from_slice(value), deadline);
        Ok(())
    }

    /// Gives a live key another deadline, in the region where it is.
    pub(crate) fn redate(&mut self, deadline: Option<Deadline>) {
        let Some(value) = self.look(|seen| seen.value.into_owned()) else { return };
        match &self.inner.cached {
            Some(cached) if self.goes_to_cache() => {
                let renew = self.is_time_to_renew();
                cached.put(self.key, value, deadline, renew);
                self.shard.waiters.wake(self.hash);
            }
            _ => self.put_pinned(value, deadline),
        }
    }

    /// Removes the key and tells whether it was live.
    pub(crate) fn remove(&mut self) -> bool {
        let live = self.is_live();
        if let Some(record) = self.take_pinned() {
            self.inner.release(record.size());
        } else if let Some(cached) = &self.inner.cached {
            cached.remove(self.key);
        }
        if live {
            self.shard.waiters.wake(self.hash);
        }
        live
    }

    /// By chance, which no pattern of writes escapes: that an entry is written 65,536 times and
    /// never renewed has a probability of less than 10^-27.
    fn is_time_to_renew(&mut self) -> bool {
        self.shard.cached_writes = self.shard.cached_writes.wrapping_add(1);
        self.inner.chance(self.shard.cached_writes, self.hash).is_multiple_of(WRITES_PER_RENEWAL)
    }

    fn take_pinned(&mut self) -> Option<Record> {
        self.shard.remove(self.hash, self.key, |key| self.inner.hash(key))
    }

    fn goes_to_cache(&self) -> bool {
        let pinned =
            |record: &Record| !record.deadline.is_some_and(|deadline| deadline.passed(self.now));
        self.inner.cached.is_some() && !self.shard.find(self.hash, self.key).is_some_and(pinned)
    }

    fn pinned_room(&self, value: &[u8]) -> Room {
        let old = self.shard.find(self.hash, self.key).map_or(0, Record::size);
        let size = record_size(self.key, value);
        Room { size, growth: size.saturating_sub(old) }
    }

    fn put_pinned(&mut self, value: Bytes, deadline: Option<Deadline>) {
        let size = record_size(self.key, &value);
        let rehash = |key: &[u8]| self.inner.hash(key);
        let replaced = self.shard.put(self.hash, self.key, value, deadline, rehash);
        self.inner.release(replaced.saturating_sub(size));
        if let Some(cached) = self.inner.cached.as_ref().filter(|_| replaced == 0) {
            cached.remove(self.key);
        }
        self.shard.waiters.wake(self.hash);
    }
}
