//! A store that counts the calls that go through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, Flights, KvStore, Result};
use futures_core::stream::BoxStream;

/// Forwards to a store; waiting for a change is not counted.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    inner: Arc<dyn KvStore>,
    calls: Arc<AtomicU64>,
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn KvStore>) -> Self {
        Self { inner, calls: Arc::default() }
    }

    /// The calls since it was last asked.
    pub(crate) fn take(&self) -> u64 {
        self.calls.swap(0, Ordering::Relaxed)
    }

    fn count(&self) -> &dyn KvStore {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &*self.inner
    }
}

#[async_trait]
impl KvStore for Counted {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.count().get(key).await
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        self.count().get_with_ttl(key).await
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        self.count().exists(key).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.count().ttl(key).await
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.count().mget(keys).await
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        self.count().set(key, value, ttl).await
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        self.count().mset(items, ttl).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.count().delete(key).await
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        self.count().delete_many(keys).await
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        self.count().expire(key, ttl).await
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        self.count().set_nx(key, value, ttl).await
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        self.count().incr(key, by, ttl).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        self.count().compare_and_set(key, expected, value, ttl).await
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.count().compare_and_delete(key, expected).await
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'_, Result<Bytes>> {
        self.count().scan(prefix)
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        self.inner.wait_for_change(key, seen, at_most).await;
    }

    fn flights(&self) -> Option<&Flights> {
        self.inner.flights()
    }
}
