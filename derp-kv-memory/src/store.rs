//! The store: what each operation of the trait does to the keyspace.

use std::collections::HashSet;
use std::fmt;
use std::iter::once;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{
    Change, Counter, Error, ErrorKind, Expiry, Flights, KvStore, Observer, Operation, Result, Step,
    StepAtOnce, StepFuture, Stepped, Ttl,
};
use futures_core::stream::BoxStream;
use tokio::runtime::Handle;

use crate::budget::Demand;
use crate::config::MemoryConfig;
use crate::coop;
use crate::evictable::cached_size;
use crate::keyspace::{Keyspace, LockedShards};
use crate::observer::SharedObserver;
use crate::regions::{Seen, expiry};
use crate::scan::scan;
use crate::slot::Slot;
use crate::stats::MemoryStats;
use crate::sweep::Sweep;
use crate::wait::wait_for_change;

/// A store in this process's memory.
///
/// Clones are handles on the same data, and the last one to go frees it. Batches are atomic
/// here, which the trait does not ask for; a [`scan`](KvStore::scan) locks one shard at a time and
/// is no picture of one moment. It yields each key once, but for a key of a bounded store that
/// moves between the evictable and the pinned while it runs, and may come twice.
///
/// # Examples
///
/// ```
/// use derp_kv_core::KvStore;
/// use derp_kv_memory::MemoryStore;
///
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// let kv = MemoryStore::new();
/// let other = kv.clone();
/// kv.set(b"k", b"v", None).await?;
/// assert_eq!(other.get(b"k").await?.as_deref(), Some(&b"v"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    keyspace: Arc<Keyspace>,
    flights: Arc<Flights>,
    sweep: Option<Arc<Sweep>>,
    observer: Option<SharedObserver>,
}

impl MemoryStore {
    /// An empty store without a bound: nothing is ever evicted or refused.
    #[must_use]
    pub fn new() -> Self {
        Self::with_checked(&MemoryConfig::default())
    }

    fn with_checked(config: &MemoryConfig) -> Self {
        Self {
            keyspace: Arc::new(Keyspace::new(config)),
            flights: Arc::default(),
            sweep: config.sweep_every.map(|every| Arc::new(Sweep::new(every))),
            observer: config.observer.clone(),
        }
    }

    /// Options for a store with a bound, a clock of its own or a background sweep.
    pub fn builder() -> MemoryConfig {
        MemoryConfig::default()
    }

    /// The bytes that pinned entries take, by estimate: everything but evictable values. Entries
    /// that have expired count until their memory is given back.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.keyspace.regions.budget.used()
    }

    /// What the store has done so far and what it holds, for all handles together.
    ///
    /// The counts are exact where nothing is written meanwhile. Under concurrent writes they are not
    /// those of one moment, and an eviction may be counted in the next call only; no count ever goes
    /// back. The call locks one shard after the other for a moment, and is made for every few seconds,
    /// not for every request.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_core::KvStore;
    /// use derp_kv_memory::MemoryStore;
    ///
    /// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
    /// let kv = MemoryStore::new();
    /// kv.set(b"k", b"v", None).await?;
    /// kv.mget(&[b"k", b"absent", b"also absent"]).await?;
    /// let stats = kv.stats();
    /// assert_eq!((stats.hits, stats.misses, stats.entries), (1, 2, 1));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        MemoryStats::of(&self.keyspace)
    }

    fn writing(&self) -> &Keyspace {
        if let Some(sweep) = &self.sweep {
            sweep.ensure(&self.keyspace);
        }
        &self.keyspace
    }
}

impl MemoryConfig {
    /// The store that the options describe.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](derp_kv_core::ErrorKind::InvalidArgument) for a bound of zero or a sweep
    /// more often than every millisecond, naming the field and what would be right. The default
    /// options have no such error.
    pub fn build(self) -> Result<MemoryStore> {
        self.check()?;
        Ok(MemoryStore::with_checked(&self))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("max_bytes", &self.keyspace.regions.budget.max_bytes())
            .field("evicts", &self.keyspace.regions.evictable.is_some())
            .field("pinned_bytes", &self.pinned_bytes())
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl KvStore for MemoryStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        coop::one_key().await;
        Ok(self.keyspace.read_value(key, |seen| seen.value.into_owned()))
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        coop::one_key().await;
        Ok(self.keyspace.read_value(key, |seen| (seen.value.into_owned(), seen.expiry)))
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        coop::one_key().await;
        Ok(self.keyspace.read(key, |_| ()).is_some())
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        coop::one_key().await;
        Ok(self.keyspace.read(key, |seen| seen.expiry))
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        coop::keys(keys.len()).await;
        let hashes: Vec<_> = keys.iter().map(|key| self.keyspace.hash(key)).collect();
        let (indices, guards) = self.keyspace.read_many(&hashes);
        let now = self.keyspace.regions.now();
        let get = |(key, &hash): (&&[u8], &u64)| {
            let at = indices.partition_point(|&index| index < Keyspace::shard_index(hash));
            let shard = &*guards[at];
            let value = |seen: Seen<'_>| seen.value.into_owned();
            let found = self.keyspace.regions.look(shard, hash, key, &now, value);
            shard.counts.asked(found.is_some());
            found
        };
        Ok(keys.iter().zip(&hashes).map(get).collect())
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        scan(self.keyspace.clone(), prefix)
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        coop::one_key().await;
        let ttl = Ttl::optional(ttl).map_err(|error| error.with_operation(Operation::Set))?;
        // A value may be large: it is copied before the lock is taken.
        let value = Bytes::copy_from_slice(value);
        let size = cached_size(key, &value, ttl.is_some());
        let write = |slot: &mut Slot<'_>| slot.write_cached(value.clone(), slot.deadline(ttl));
        let keyspace = self.writing();
        keyspace
            .caching(once((key, size)), || keyspace.update(key, write))
            .map_err(|error| error.with_operation(Operation::Set))
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        coop::keys(items.len()).await;
        let named = |error: derp_kv_core::Error| error.with_operation(Operation::Mset);
        let ttl = Ttl::optional(ttl).map_err(named)?;
        // Of equal keys only the last is written, and only it is counted.
        let mut seen = HashSet::new();
        let items: Vec<_> = items.iter().rev().filter(|(key, _)| seen.insert(*key)).collect();
        let hashes: Vec<_> = items.iter().map(|(key, _)| self.keyspace.hash(key)).collect();
        // Values may be large: they are copied before the locks are taken.
        let copy = |(_, value): &&(&[u8], &[u8])| Bytes::copy_from_slice(value);
        let values: Vec<_> = items.iter().map(copy).collect();
        let write = |shards: &mut LockedShards<'_>| {
            // The budget is reserved for all of them first: the batch is written whole or not.
            let mut demand = Demand::default();
            for ((key, value), &hash) in items.iter().zip(&hashes) {
                demand = demand.and(shards.slot(hash, key).cached_demand(value, ttl.is_some())?);
            }
            self.keyspace.regions.budget.reserve(demand)?;
            for (((key, _), &hash), value) in items.iter().zip(&hashes).zip(&values) {
                let mut slot = shards.slot(hash, key);
                slot.write_cached_reserved(value.clone(), slot.deadline(ttl));
            }
            Ok(())
        };
        let sizes = items.iter().map(|(key, value)| (*key, cached_size(key, value, ttl.is_some())));
        let keyspace = self.writing();
        keyspace.caching(sizes, || keyspace.update_many(&hashes, write)).map_err(named)
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        coop::one_key().await;
        self.writing().update(key, |slot| Ok(slot.remove()))
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        coop::keys(keys.len()).await;
        let hashes: Vec<_> = keys.iter().map(|key| self.keyspace.hash(key)).collect();
        self.writing().update_many(&hashes, |shards| {
            let mut removed = 0;
            for (key, &hash) in keys.iter().zip(&hashes) {
                removed += u64::from(shards.slot(hash, key).remove());
            }
            Ok(removed)
        })
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        coop::one_key().await;
        let ttl = Ttl::new(ttl).map_err(|error| error.with_operation(Operation::Expire))?;
        let keyspace = self.writing();
        let redate = |slot: &mut Slot<'_>| {
            let live = slot.is_live();
            if live {
                slot.redate(slot.deadline(Some(ttl)));
            }
            Ok(live)
        };
        // A value that had no deadline grows by that of the estimate.
        let size = cached_size(key, b"", true);
        keyspace.caching(once((key, size)), || keyspace.update(key, redate))
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        coop::one_key().await;
        let named = |error: derp_kv_core::Error| error.with_operation(Operation::SetNx);
        let ttl = Ttl::optional(ttl).map_err(named)?;
        let write = |slot: &mut Slot<'_>| {
            if slot.is_live() {
                return Ok(false);
            }
            slot.write_pinned(value, slot.deadline(ttl))?;
            Ok(true)
        };
        self.writing().update(key, write).map_err(named)
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        coop::one_key().await;
        let named = |error: derp_kv_core::Error| error.with_operation(Operation::Incr);
        let ttl = Ttl::optional(ttl).map_err(named)?;
        let count = |slot: &mut Slot<'_>| {
            let read = |seen: Seen<'_>| (Counter::parse(&seen.value), seen.deadline);
            let (value, deadline) = match slot.look(read) {
                Some((value, deadline)) => (Counter::add(value?, by)?, deadline),
                None => (by, slot.deadline(ttl)),
            };
            slot.write_pinned(value.to_string().as_bytes(), deadline)?;
            Ok(Counter { value, expiry: expiry(deadline, slot.now) })
        };
        self.writing().update(key, count).map_err(named)
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        coop::one_key().await;
        let named = |error: derp_kv_core::Error| error.with_operation(Operation::CompareAndSet);
        let ttl = Ttl::optional(ttl).map_err(named)?;
        let swap = |slot: &mut Slot<'_>| {
            if !slot.holds(expected) {
                return Ok(false);
            }
            slot.write_pinned(value, slot.deadline(ttl))?;
            Ok(true)
        };
        self.writing().update(key, swap).map_err(named)
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        coop::one_key().await;
        self.writing().update(key, |slot| Ok(slot.holds(expected) && slot.remove()))
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        coop::one_key().await;
        wait_for_change(&self.keyspace, key, seen, at_most).await;
    }

    fn step<'a>(&'a self, key: &'a [u8], step: &'a Step) -> StepFuture<'a> {
        StepFuture::at_once(self, key, step)
    }

    fn flights(&self) -> Option<&Flights> {
        Some(&self.flights)
    }

    fn runtime(&self) -> Option<Handle> {
        None
    }

    fn observer(&self) -> Option<&dyn Observer> {
        self.observer.as_ref().map(|observer| &*observer.0)
    }
}

impl StepAtOnce for MemoryStore {
    fn step_at_once(&self, key: &[u8], step: &Step) -> Result<Stepped> {
        let named = |error: derp_kv_core::Error| error.with_operation(Operation::Step);
        let make = |slot: &mut Slot<'_>| {
            let made = slot.look(|seen| step.apply(Some((&seen.value, seen.expiry))));
            let (change, stepped) = made.unwrap_or_else(|| step.apply(None))?;
            match change {
                Change::Set { value, ttl } => {
                    slot.write_pinned(&value, slot.deadline(Some(Ttl::new(ttl)?)))?;
                }
                Change::Delete => drop(slot.remove()),
                Change::Keep => {}
                _ => return Err(Error::new(ErrorKind::Unsupported, "an unknown change").into()),
            }
            Ok(stepped)
        };
        self.writing().update(key, make).map_err(named)
    }
}
