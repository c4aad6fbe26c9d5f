use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use derp_kv_core::{Flights, Result};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::task::AbortHandle;

use crate::budget::{Refusal, Room};
use crate::clock::Clock;
use crate::config::{MemoryBuilder, OnFull};
use crate::evictable::Cached;
use crate::pinned::Shard;
use crate::slot::{Seen, Slot};

/// More shards make a scan's copies smaller and contention rarer; an empty store stays small.
pub(crate) const SHARDS: usize = 256;

/// Due deadlines that every written key takes care of: more than the one it may add.
const SWEEP_PER_WRITE: usize = 2;

/// Steps of reclaiming before a write is refused: room for some megabytes, in some milliseconds.
const RECLAIM_STEPS: usize = 64;

/// Due deadlines looked at before a write is refused, and while a shard's lock is held.
pub(crate) const SWEEP_PER_STEP: usize = 256;

/// What all handles on one store share.
#[derive(Debug)]
pub(crate) struct Inner {
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
    pub(crate) clock: Clock,
    pub(crate) cached: Option<Cached>,
    pub(crate) max_bytes: Option<usize>,
    pinned_bytes: AtomicUsize,
    reclaim_cursor: AtomicUsize,
    pub(crate) flights: Flights,
    pub(crate) sweep_every: Option<Duration>,
    pub(crate) sweeper: Mutex<Option<AbortHandle>>,
}

impl Inner {
    pub(crate) fn new(options: MemoryBuilder) -> Self {
        let evicts = options.on_full == OnFull::EvictCached;
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            clock: options.clock.map_or_else(Clock::tokio, Clock::Manual),
            cached: options.max_bytes.filter(|_| evicts).map(Cached::new),
            max_bytes: options.max_bytes.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
            pinned_bytes: AtomicUsize::new(0),
            reclaim_cursor: AtomicUsize::new(0),
            flights: Flights::new(),
            sweep_every: options.sweep_every,
            sweeper: Mutex::default(),
        }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// A number that nobody outside can foretell.
    pub(crate) fn chance(&self, count: u32, hash: u64) -> u64 {
        self.hasher.hash_one((count, hash))
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
        self.look(&shard, hash, key, f)
    }

    /// [`read`](Self::read) for callers that hold the lock.
    pub(crate) fn look<T>(
        &self,
        shard: &Shard,
        hash: u64,
        key: &[u8],
        f: impl FnOnce(Seen<'_>) -> T,
    ) -> Option<T> {
        let now = || self.clock.now();
        if let Some(record) = shard.find(hash, key) {
            return Seen::live(Cow::Borrowed(&record.value), record.deadline, now).map(f);
        }
        let entry = self.cached.as_ref()?.get(key)?;
        Seen::live(Cow::Owned(entry.value), entry.deadline, now).map(f)
    }

    /// Works on one key under its shard's write lock. Where there is no room, expired records are
    /// swept and `f` runs again, so it must not have written before it fails.
    pub(crate) fn update<T>(
        &self,
        key: &[u8],
        mut f: impl FnMut(&mut Slot<'_>) -> Result<T, Refusal>,
    ) -> Result<T> {
        let hash = self.hash(key);
        self.reclaiming(|sweep_per_key| {
            let mut shard = self.shard(Self::shard_index(hash)).write();
            // Read inside the lock: an older time would apply to a newer value.
            let now = self.clock.now();
            self.sweep_some(&mut shard, now, sweep_per_key);
            f(&mut Slot::new(self, &mut shard, hash, key, now))
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
            let now = self.clock.now();
            let mut shards = LockedShards { inner: self, indices, guards, now };
            for &hash in hashes {
                self.sweep_some(shards.shard(hash), now, sweep_per_key);
            }
            f(&mut shards)
        })
    }

    /// Runs `attempt` again for as long as it finds no room and something expired makes some. It is
    /// told how many due deadlines to take care of for each key: only once, for the steps between
    /// the attempts sweep enough.
    fn reclaiming<T>(&self, mut attempt: impl FnMut(usize) -> Result<T, Refusal>) -> Result<T> {
        let mut result = attempt(SWEEP_PER_WRITE);
        for _ in 0..RECLAIM_STEPS {
            if !matches!(result, Err(Refusal::NoRoomNow)) || !self.reclaim_step() {
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

    /// Counts bytes that pinned records are about to grow by.
    pub(crate) fn reserve(&self, Room { size, growth }: Room) -> Result<(), Refusal> {
        let max = self.max_bytes.unwrap_or(usize::MAX);
        if size > max {
            return Err(Refusal::never_fits());
        }
        let add = |used: usize| used.checked_add(growth).filter(|&sum| growth == 0 || sum <= max);
        match self.pinned_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::NoRoomNow),
        }
    }

    pub(crate) fn release(&self, shrink: usize) {
        self.pinned_bytes.fetch_sub(shrink, Ordering::Relaxed);
    }

    pub(crate) fn pinned_bytes(&self) -> usize {
        self.pinned_bytes.load(Ordering::Relaxed)
    }

    fn sweep_some(&self, shard: &mut Shard, now: u64, budget: usize) -> usize {
        let (taken, freed) = shard.sweep(now, budget, |key| self.hash(key));
        self.release(freed);
        taken
    }

    /// Sweeps shard after shard until a step's budget is used or all were visited; tells whether
    /// anything was due.
    fn reclaim_step(&self) -> bool {
        let mut taken = 0;
        for _ in 0..SHARDS {
            let index = self.reclaim_cursor.fetch_add(1, Ordering::Relaxed) % SHARDS;
            taken += self.sweep_shard(index, SWEEP_PER_STEP - taken);
            if taken >= SWEEP_PER_STEP {
                break;
            }
        }
        taken > 0
    }

    /// Sweeps from one shard on until a step's budget is used or all were visited. Returns the shard
    /// to go on with.
    pub(crate) fn sweep_step(&self, from: usize) -> usize {
        let mut taken = 0;
        for index in from..SHARDS {
            taken += self.sweep_shard(index, SWEEP_PER_STEP - taken);
            if taken >= SWEEP_PER_STEP {
                // There may be more in this one.
                return index;
            }
        }
        SHARDS
    }

    /// Looks at no more than `budget` due deadlines of one shard and returns how many there were.
    fn sweep_shard(&self, index: usize, budget: usize) -> usize {
        let mut shard = self.shard(index).write();
        let now = self.clock.now();
        self.sweep_some(&mut shard, now, budget)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(sweeper) = self.sweeper.get_mut() {
            sweeper.abort();
        }
    }
}

/// The shards of a batch, locked in index order.
pub(crate) struct LockedShards<'a> {
    inner: &'a Inner,
    indices: Vec<usize>,
    guards: Vec<RwLockWriteGuard<'a, Shard>>,
    now: u64,
}

impl LockedShards<'_> {
    /// The slot of `key`, whose hash was among those that were locked.
    pub(crate) fn slot<'b>(&'b mut self, hash: u64, key: &'b [u8]) -> Slot<'b> {
        let (inner, now) = (self.inner, self.now);
        Slot::new(inner, self.shard(hash), hash, key, now)
    }

    fn shard(&mut self, hash: u64) -> &mut Shard {
        let at = self.indices.partition_point(|&index| index < Inner::shard_index(hash));
        &mut self.guards[at]
    }
}
