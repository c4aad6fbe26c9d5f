//! All keys of a store: the shards with their locks, and the sweeping of what has expired.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use derp_kv_core::Result;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::budget::Refusal;
use crate::clock::{Deadline, Now};
use crate::config::MemoryConfig;
use crate::regions::{Regions, Seen};
use crate::shard::Shard;
use crate::slot::Slot;

/// More shards make a scan's copies smaller and contention rarer; an empty store stays small.
pub(crate) const SHARDS: usize = 256;

/// Due deadlines that every written key takes care of: more than the one it may add.
const SWEEP_PER_WRITE: usize = 2;

/// Steps of reclaiming before a write is refused: room for some megabytes, in some milliseconds.
const RECLAIM_STEPS: usize = 64;

/// Steps of sweeping before cached values are evicted for a write.
const SWEEP_STEPS_PER_EVICTION: usize = 16;

/// Due deadlines looked at before a write is refused, and while a shard's lock is held.
pub(crate) const SWEEP_PER_STEP: usize = 256;

/// The keyspace that all handles on one store share.
#[derive(Debug)]
pub(crate) struct Keyspace {
    shards: Box<[RwLock<Shard>]>,
    pub(crate) regions: Regions,
    reclaim_cursor: AtomicUsize,
    /// The earliest deadline of the cached values of each shard, in nanoseconds: what has expired is
    /// found without the locks. Stored with the shard locked.
    first_cached: Box<[AtomicU64]>,
}

impl Keyspace {
    pub(crate) fn new(options: &MemoryConfig) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            regions: Regions::new(options),
            reclaim_cursor: AtomicUsize::new(0),
            first_cached: (0..SHARDS).map(|_| AtomicU64::new(u64::MAX)).collect(),
        }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.regions.hash(key)
    }

    pub(crate) fn shard_index(hash: u64) -> usize {
        // The table inside the shard uses the lowest and the highest bits.
        (hash >> 32) as usize % SHARDS
    }

    pub(crate) fn shard(&self, index: usize) -> &RwLock<Shard> {
        &self.shards[index]
    }

    /// Looks at one key under its shard's read lock.
    pub(crate) fn read<T>(&self, key: &[u8], f: impl FnOnce(Seen<'_>) -> T) -> Option<T> {
        let hash = self.hash(key);
        let shard = self.shard(Self::shard_index(hash)).read();
        self.regions.look(&shard, hash, key, &self.regions.now(), f)
    }

    /// [`read`](Self::read) of a value that a caller asks for, which is counted.
    pub(crate) fn read_value<T>(&self, key: &[u8], f: impl FnOnce(Seen<'_>) -> T) -> Option<T> {
        let hash = self.hash(key);
        let shard = self.shard(Self::shard_index(hash)).read();
        let found = self.regions.look(&shard, hash, key, &self.regions.now(), f);
        shard.counts.asked(found.is_some());
        found
    }

    /// Works on one key under its shard's write lock. Where the budget is used up, expired entries are
    /// swept and `f` runs again, so it must not have written before it fails.
    pub(crate) fn update<T>(
        &self,
        key: &[u8],
        mut f: impl FnMut(&mut Slot<'_>) -> Result<T, Refusal>,
    ) -> Result<T> {
        let hash = self.hash(key);
        self.reclaiming(|sweep_per_key| {
            let index = Self::shard_index(hash);
            let mut shard = self.shard(index).write();
            let now = self.regions.now();
            self.sweep_some(&mut shard, &now, sweep_per_key);
            let result = f(&mut Slot::new(&self.regions, &mut shard, hash, key, &now));
            self.note_first_cached(index, &shard);
            result
        })
    }

    /// Works on many keys, under the write locks of all their shards.
    pub(crate) fn update_many<T>(
        &self,
        hashes: &[u64],
        mut f: impl FnMut(&mut LockedShards<'_>) -> Result<T, Refusal>,
    ) -> Result<T> {
        self.reclaiming(|sweep_per_key| {
            let indices = Self::shard_indices(hashes);
            let guards = indices.iter().map(|&index| self.shard(index).write()).collect();
            let now = self.regions.now();
            let mut shards = LockedShards { keyspace: self, indices, guards, now };
            for &hash in hashes {
                let (shard, now) = shards.shard(hash);
                self.sweep_some(shard, now, sweep_per_key);
            }
            let result = f(&mut shards);
            for (&index, shard) in shards.indices.iter().zip(&shards.guards) {
                self.note_first_cached(index, shard);
            }
            result
        })
    }

    /// Runs `attempt` again for as long as it is refused for now and something expired is swept. It is
    /// told how many due deadlines to take care of for each key: only once, for the steps between
    /// the attempts sweep enough.
    fn reclaiming<T>(&self, mut attempt: impl FnMut(usize) -> Result<T, Refusal>) -> Result<T> {
        let mut result = attempt(SWEEP_PER_WRITE);
        for _ in 0..RECLAIM_STEPS {
            if !matches!(result, Err(Refusal::FullNow)) || !self.reclaim_step() {
                break;
            }
            result = attempt(0);
        }
        result.map_err(Refusal::into_error)
    }

    /// The read locks of the shards of `hashes`, with their indices in ascending order.
    pub(crate) fn read_many(
        &self,
        hashes: &[u64],
    ) -> (Vec<usize>, Vec<RwLockReadGuard<'_, Shard>>) {
        let indices = Self::shard_indices(hashes);
        let guards = indices.iter().map(|&index| self.shard(index).read()).collect();
        (indices, guards)
    }

    /// In ascending order and without repeats: the order in which several locks may be taken.
    fn shard_indices(hashes: &[u64]) -> Vec<usize> {
        let mut indices: Vec<_> = hashes.iter().map(|&hash| Self::shard_index(hash)).collect();
        indices.sort_unstable();
        indices.dedup();
        indices
    }

    /// Looks at no more than `limit` due deadlines.
    fn sweep_some(&self, shard: &mut Shard, now: &Now<'_>, limit: usize) -> usize {
        let taken = self.sweep_pinned(shard, now, limit);
        taken + self.sweep_cached(shard, now, limit - taken)
    }

    fn sweep_pinned(&self, shard: &mut Shard, now: &Now<'_>, limit: usize) -> usize {
        let (taken, freed) = shard.sweep(now, limit, |key| self.hash(key));
        self.regions.budget.release(freed);
        taken
    }

    fn sweep_cached(&self, shard: &mut Shard, now: &Now<'_>, limit: usize) -> usize {
        let Some(evictable) = &self.regions.evictable else { return 0 };
        shard.sweep_cached(now, limit, |key| evictable.end(key))
    }

    fn note_first_cached(&self, index: usize, shard: &Shard) {
        if self.regions.evictable.is_some() {
            let first = shard.first_cached_deadline().map_or(u64::MAX, Deadline::nanos);
            self.first_cached[index].store(first, Ordering::Relaxed);
        }
    }

    /// Runs a write of these keys and sizes that may go to the cached values. Where it evicts, what
    /// has expired goes first. No lock is held while others are evicted for it.
    pub(crate) fn caching<'a, T>(
        &self,
        entries: impl Iterator<Item = (&'a [u8], usize)> + Clone,
        write: impl FnOnce() -> T,
    ) -> T {
        let Some(evictable) = &self.regions.evictable else { return write() };
        let bytes = entries.clone().map(|(_, size)| size).sum();
        for _ in 0..SWEEP_STEPS_PER_EVICTION {
            if !evictable.is_full_for(bytes) || !self.sweep_cached_step() {
                break;
            }
            evictable.apply();
        }
        if evictable.is_much(bytes) {
            evictable.make_room(entries);
        }
        let result = write();
        evictable.written(bytes);
        result
    }

    /// Sweeps cached values of whichever shards have expired ones until a step's budget is used;
    /// tells whether anything was due.
    fn sweep_cached_step(&self) -> bool {
        let now = self.regions.now().nanos();
        let mut taken = 0;
        for index in 0..SHARDS {
            if self.first_cached[index].load(Ordering::Relaxed) <= now {
                taken += self.sweep_shard(index, SWEEP_PER_STEP - taken, Self::sweep_cached);
            }
            if taken >= SWEEP_PER_STEP {
                break;
            }
        }
        taken > 0
    }

    /// Sweeps the pinned entries of shard after shard until a step's budget is used or all were
    /// visited; tells whether anything was due.
    fn reclaim_step(&self) -> bool {
        let mut taken = 0;
        for _ in 0..SHARDS {
            let index = self.reclaim_cursor.fetch_add(1, Ordering::Relaxed) % SHARDS;
            taken += self.sweep_shard(index, SWEEP_PER_STEP - taken, Self::sweep_pinned);
            if taken >= SWEEP_PER_STEP {
                break;
            }
        }
        taken > 0
    }

    /// Sweeps from one shard on until a step's budget is used or all were visited. Returns the shard
    /// to go on with.
    pub(crate) fn sweep_step(&self, from: usize) -> usize {
        let (mut taken, mut next) = (0, SHARDS);
        for index in from..SHARDS {
            taken += self.sweep_shard(index, SWEEP_PER_STEP - taken, Self::sweep_some);
            if taken >= SWEEP_PER_STEP {
                // There may be more in this one.
                next = index;
                break;
            }
        }
        if let Some(evictable) = &self.regions.evictable {
            evictable.apply();
        }
        next
    }

    /// Looks at no more than `limit` due deadlines of one shard and returns how many there were.
    fn sweep_shard(&self, index: usize, limit: usize, sweep: SweepShard) -> usize {
        let mut shard = self.shard(index).write();
        let taken = sweep(self, &mut shard, &self.regions.now(), limit);
        self.note_first_cached(index, &shard);
        taken
    }
}

/// Looks at no more than so many due deadlines of a shard, and returns how many there were.
type SweepShard = fn(&Keyspace, &mut Shard, &Now<'_>, usize) -> usize;

/// The shards of a batch, locked in index order.
pub(crate) struct LockedShards<'a> {
    keyspace: &'a Keyspace,
    indices: Vec<usize>,
    guards: Vec<RwLockWriteGuard<'a, Shard>>,
    now: Now<'a>,
}

impl LockedShards<'_> {
    /// The slot of `key`, whose hash was among those that were locked.
    pub(crate) fn slot<'b>(&'b mut self, hash: u64, key: &'b [u8]) -> Slot<'b> {
        let regions = &self.keyspace.regions;
        let (shard, now) = self.shard(hash);
        Slot::new(regions, shard, hash, key, now)
    }

    fn shard(&mut self, hash: u64) -> (&mut Shard, &Now<'_>) {
        let at = self.indices.partition_point(|&index| index < Keyspace::shard_index(hash));
        (&mut self.guards[at], &self.now)
    }
}
