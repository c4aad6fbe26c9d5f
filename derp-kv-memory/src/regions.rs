//! The two regions that hold the entries, seen as one.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use derp_kv_core::Expiry;

use crate::budget::Budget;
use crate::clock::{Clock, Deadline, Now};
use crate::config::{MemoryConfig, OnFull};
use crate::evictable::Evictable;
use crate::shard::Shard;

/// What all shards share: the region of cached values, which is none where nothing is evicted, the
/// budget of the pinned entries, the clock and the hash function.
#[derive(Debug)]
pub(crate) struct Regions {
    hasher: RandomState,
    pub(crate) clock: Clock,
    pub(crate) budget: Budget,
    pub(crate) evictable: Option<Evictable>,
}

impl Regions {
    pub(crate) fn new(options: &MemoryConfig) -> Self {
        let evicts = options.on_full == OnFull::EvictCached;
        let max_bytes = options.max_bytes.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        Self {
            hasher: RandomState::new(),
            clock: options.clock.clone().map_or_else(Clock::tokio, Clock::Manual),
            budget: Budget::new(max_bytes),
            evictable: options.max_bytes.filter(|_| evicts).map(Evictable::new),
        }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// A number that nobody outside can foretell.
    pub(crate) fn chance(&self, count: u32, hash: u64) -> u64 {
        self.hasher.hash_one((count, hash))
    }

    /// Looks at one key in both regions. `shard` is the key's, and locked.
    pub(crate) fn look<T>(
        &self,
        shard: &Shard,
        hash: u64,
        key: &[u8],
        now: &Now<'_>,
        f: impl FnOnce(Seen<'_>) -> T,
    ) -> Option<T> {
        if let Some(entry) = shard.find(hash, key) {
            return Seen::live(Cow::Borrowed(&entry.value), entry.deadline, now).map(f);
        }
        let cached = self.evictable.as_ref()?.get(key)?;
        let deadline = cached.deadline();
        Seen::live(Cow::Owned(cached.value), deadline, now).map(f)
    }

    pub(crate) fn now(&self) -> Now<'_> {
        Now::by(&self.clock)
    }
}

/// A live value and its deadline.
pub(crate) struct Seen<'a> {
    /// A pinned value is borrowed, a cached one is owned.
    pub(crate) value: Cow<'a, Bytes>,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) expiry: Expiry,
}

impl<'a> Seen<'a> {
    /// `None` where the deadline has passed.
    fn live(value: Cow<'a, Bytes>, deadline: Option<Deadline>, now: &Now<'_>) -> Option<Self> {
        let live = is_live(deadline, now);
        live.then(|| Self { value, deadline, expiry: expiry(deadline, now) })
    }
}

pub(crate) fn is_live(deadline: Option<Deadline>, now: &Now<'_>) -> bool {
    !deadline.is_some_and(|deadline| deadline.passed(now))
}

pub(crate) fn expiry(deadline: Option<Deadline>, now: &Now<'_>) -> Expiry {
    deadline.map_or(Expiry::Never, |deadline| Expiry::In(deadline.remaining(now)))
}
