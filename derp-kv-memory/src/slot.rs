//! One key under its shard's lock, in whichever region its entry is.

use std::sync::Arc;

use bytes::Bytes;
use derp_kv_core::Ttl;

use crate::budget::{Demand, Refusal};
use crate::clock::{Deadline, Now};
use crate::evictable::{CachedValue, Evictable, cached_size};
use crate::regions::{Regions, Seen, is_live};
use crate::shard::{PinnedEntry, Shard, pinned_size};

/// moka counts the writes of an entry in 16 bits; an entry written more often can no longer be
/// evicted. One write of so many puts its entry in anew. Counting the writes of each would cost
/// every write a look at the old entry.
const WRITES_PER_RENEWAL: u64 = 1024;

/// One key under its shard's write lock.
pub(crate) struct Slot<'a> {
    regions: &'a Regions,
    shard: &'a mut Shard,
    hash: u64,
    key: &'a [u8],
    pub(crate) now: &'a Now<'a>,
}

impl<'a> Slot<'a> {
    pub(crate) fn new(
        regions: &'a Regions,
        shard: &'a mut Shard,
        hash: u64,
        key: &'a [u8],
        now: &'a Now<'a>,
    ) -> Self {
        Self { regions, shard, hash, key, now }
    }

    pub(crate) fn look<T>(&self, f: impl FnOnce(Seen<'_>) -> T) -> Option<T> {
        self.regions.look(self.shard, self.hash, self.key, self.now, f)
    }

    pub(crate) fn deadline(&self, ttl: Option<Ttl>) -> Option<Deadline> {
        ttl.map(|ttl| Deadline::after(self.now, ttl))
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
        value: Bytes,
        deadline: Option<Deadline>,
    ) -> Result<(), Refusal> {
        let demand = self.cached_demand(&value, deadline.is_some())?;
        self.regions.budget.reserve(demand)?;
        self.write_cached_reserved(value, deadline);
        Ok(())
    }

    /// The demand to reserve before [`write_cached_reserved`](Self::write_cached_reserved).
    pub(crate) fn cached_demand(&self, value: &[u8], ends: bool) -> Result<Demand, Refusal> {
        if self.goes_to_cache() {
            let max = self.regions.budget.max_bytes().unwrap_or(usize::MAX);
            let fits = cached_size(self.key, value, ends) <= max;
            return if fits { Ok(Demand::default()) } else { Err(Refusal::never_fits()) };
        }
        Ok(self.pinned_demand(value))
    }

    pub(crate) fn write_cached_reserved(&mut self, value: Bytes, deadline: Option<Deadline>) {
        match &self.regions.evictable {
            Some(evictable) if self.goes_to_cache() => {
                // What is pinned under this key has expired.
                if let Some(expired) = self.take_pinned() {
                    self.regions.budget.release(expired.size());
                }
                self.put_cached(evictable, value, deadline);
            }
            _ => self.put_pinned(value, deadline),
        }
    }

    /// Writes an entry that is never evicted.
    pub(crate) fn write_pinned(
        &mut self,
        value: &[u8],
        deadline: Option<Deadline>,
    ) -> Result<(), Refusal> {
        let rehash = |key: &[u8]| self.regions.hash(key);
        if self.shard.overwrite(self.hash, self.key, value, deadline, rehash) {
            self.shard.waiters.wake(self.hash);
            return Ok(());
        }
        self.regions.budget.reserve(self.pinned_demand(value))?;
        self.put_pinned(Bytes::copy_from_slice(value), deadline);
        Ok(())
    }

    /// Gives a live key another deadline, in the region where it is.
    pub(crate) fn redate(&mut self, deadline: Option<Deadline>) {
        let Some(value) = self.look(|seen| seen.value.into_owned()) else { return };
        match &self.regions.evictable {
            Some(evictable) if self.goes_to_cache() => self.put_cached(evictable, value, deadline),
            _ => self.put_pinned(value, deadline),
        }
    }

    /// Removes the key and tells whether it was live.
    pub(crate) fn remove(&mut self) -> bool {
        let live = self.is_live();
        if let Some(entry) = self.take_pinned() {
            self.regions.budget.release(entry.size());
        } else if let Some(evictable) = &self.regions.evictable {
            self.take_cached(evictable);
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
        self.regions.chance(self.shard.cached_writes, self.hash).is_multiple_of(WRITES_PER_RENEWAL)
    }

    fn take_pinned(&mut self) -> Option<PinnedEntry> {
        self.shard.remove(self.hash, self.key, |key| self.regions.hash(key))
    }

    fn take_cached(&mut self, evictable: &Evictable) {
        self.shard.counts.cached_removed += u64::from(evictable.remove(self.key));
        self.shard.cached_changed(None);
    }

    fn goes_to_cache(&self) -> bool {
        let pinned = |entry: &PinnedEntry| is_live(entry.deadline, self.now);
        self.regions.evictable.is_some()
            && !self.shard.find(self.hash, self.key).is_some_and(pinned)
    }

    fn pinned_demand(&self, value: &[u8]) -> Demand {
        let old = self.shard.find(self.hash, self.key).map_or(0, PinnedEntry::size);
        let total = pinned_size(self.key, value);
        Demand { total, growth: total.saturating_sub(old) }
    }

    fn put_cached(&mut self, evictable: &Evictable, value: Bytes, deadline: Option<Deadline>) {
        let ending = deadline.map(|deadline| (deadline, Arc::from(self.key)));
        let renew = self.is_time_to_renew();
        let is_new = evictable.put(self.key, CachedValue { value, ending: ending.clone() }, renew);
        self.shard.counts.cached_added += u64::from(is_new);
        self.shard.cached_changed(ending);
        self.shard.waiters.wake(self.hash);
    }

    fn put_pinned(&mut self, value: Bytes, deadline: Option<Deadline>) {
        let size = pinned_size(self.key, &value);
        let rehash = |key: &[u8]| self.regions.hash(key);
        let replaced = self.shard.put(self.hash, self.key, value, deadline, rehash);
        self.regions.budget.release(replaced.saturating_sub(size));
        if let Some(evictable) = self.regions.evictable.as_ref().filter(|_| replaced == 0) {
            self.take_cached(evictable);
        }
        self.shard.waiters.wake(self.hash);
    }
}
