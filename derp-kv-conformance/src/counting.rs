use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, Flights, KvStore, Result};
use futures_core::stream::BoxStream;

use crate::Operation;

/// A store that counts the calls of each primitive: exact budgets for your own tests.
///
/// Clones count together. Flights are the inner store's.
///
/// # Examples
///
/// ```
/// use derp_kv_conformance::{CountingStore, Operation};
/// use derp_kv_core::{Dedup, KvStoreExt};
/// use derp_kv_memory::MemoryStore;
///
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// let kv = CountingStore::new(MemoryStore::new());
/// kv.already_processed("evt_1", Dedup::default()).await?;
/// let counts = kv.take();
/// assert_eq!((counts.total(), counts.of(Operation::SetNx)), (1, 1));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CountingStore<S> {
    inner: S,
    counts: Arc<[AtomicU64; Operation::ALL.len()]>,
}

impl<S: KvStore> CountingStore<S> {
    /// Counts the calls that go to `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner, counts: Arc::default() }
    }

    /// The store underneath, whose calls are not counted.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts(std::array::from_fn(|at| self.counts[at].load(Ordering::SeqCst)))
    }

    /// What was counted since the last time, and counts from zero again.
    #[must_use]
    pub fn take(&self) -> Counts {
        Counts(std::array::from_fn(|at| self.counts[at].swap(0, Ordering::SeqCst)))
    }

    fn count(&self, operation: Operation) -> &S {
        self.counts[operation as usize].fetch_add(1, Ordering::SeqCst);
        &self.inner
    }
}

/// How often each primitive was called. Prints those that were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Operation::ALL.len()]);

impl Counts {
    /// Calls of one primitive.
    #[must_use]
    pub fn of(&self, operation: Operation) -> u64 {
        self.0[operation as usize]
    }

    /// Calls of all primitives but [`wait_for_change`](Operation::WaitForChange), which waits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum::<u64>() - self.of(Operation::WaitForChange)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let called = Operation::ALL.iter().filter(|&&operation| self.of(operation) > 0);
        for (at, &operation) in called.enumerate() {
            let gap = if at == 0 { "" } else { ", " };
            write!(f, "{gap}{operation} {}", self.of(operation))?;
        }
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: KvStore> KvStore for CountingStore<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.count(Operation::Get).get(key).await
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        self.count(Operation::GetWithTtl).get_with_ttl(key).await
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        self.count(Operation::Exists).exists(key).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.count(Operation::Ttl).ttl(key).await
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.count(Operation::Mget).mget(keys).await
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'_, Result<Bytes>> {
        self.count(Operation::Scan).scan(prefix)
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        self.count(Operation::Set).set(key, value, ttl).await
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        self.count(Operation::Mset).mset(items, ttl).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.count(Operation::Delete).delete(key).await
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        self.count(Operation::DeleteMany).delete_many(keys).await
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        self.count(Operation::Expire).expire(key, ttl).await
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        self.count(Operation::SetNx).set_nx(key, value, ttl).await
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        self.count(Operation::Incr).incr(key, by, ttl).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        self.count(Operation::CompareAndSet).compare_and_set(key, expected, value, ttl).await
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.count(Operation::CompareAndDelete).compare_and_delete(key, expected).await
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        self.count(Operation::WaitForChange).wait_for_change(key, seen, at_most).await;
    }

    fn flights(&self) -> Option<&Flights> {
        self.inner.flights()
    }
}
