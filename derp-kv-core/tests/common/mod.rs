//! What the helpers' tests share.
#![allow(dead_code, reason = "each test target uses a part")]

pub(crate) mod scripted;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, Flights, KvStore, Prefixed, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;

/// A handle as another process would have: the same data, flights of its own, and an await point
/// before and after each call.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    data: MemoryStore,
    flights: Arc<Flights>,
    blind_to: Option<&'static [u8]>,
}

impl Process {
    pub(crate) fn of(data: &MemoryStore) -> Self {
        Self { data: data.clone(), flights: Arc::default(), blind_to: None }
    }

    /// `get` never finds this key, as on a replica that lags behind.
    pub(crate) fn blind_to(data: &MemoryStore, key: &'static [u8]) -> Self {
        Self { blind_to: Some(key), ..Self::of(data) }
    }
}

/// A call that takes as long as it takes another task to run.
macro_rules! far {
    ($call:expr) => {{
        tokio::task::yield_now().await;
        let result = $call.await;
        tokio::task::yield_now().await;
        result
    }};
}

#[async_trait]
impl KvStore for Process {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let found = far!(self.data.get(key))?;
        Ok(found.filter(|_| self.blind_to != Some(key)))
    }
    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        far!(self.data.get_with_ttl(key))
    }
    async fn exists(&self, key: &[u8]) -> Result<bool> {
        far!(self.data.exists(key))
    }
    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        far!(self.data.ttl(key))
    }
    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        far!(self.data.mget(keys))
    }
    fn scan(&self, prefix: &[u8]) -> BoxStream<'_, Result<Bytes>> {
        self.data.scan(prefix)
    }
    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        far!(self.data.set(key, value, ttl))
    }
    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        far!(self.data.mset(items, ttl))
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        far!(self.data.delete(key))
    }
    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        far!(self.data.delete_many(keys))
    }
    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        far!(self.data.expire(key, ttl))
    }
    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        far!(self.data.set_nx(key, value, ttl))
    }
    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        far!(self.data.incr(key, by, ttl))
    }
    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        far!(self.data.compare_and_set(key, expected, value, ttl))
    }
    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        far!(self.data.compare_and_delete(key, expected))
    }
    fn flights(&self) -> Option<&Flights> {
        Some(&self.flights)
    }
}

/// One store as its users may hold it.
pub(crate) fn forms_of(data: MemoryStore) -> Vec<Arc<dyn KvStore>> {
    let dynamic: Arc<dyn KvStore> = Arc::new(data.clone());
    vec![
        Arc::new(Prefixed::new(data.clone(), "a:")),
        Arc::new(Prefixed::new(dynamic.clone(), "b:")),
        Arc::new(Process::of(&MemoryStore::new())),
        dynamic,
    ]
}

/// Polls `future` no more than so many times, and tells whether it finished.
pub(crate) async fn drop_after<T>(polls: u32, future: impl Future<Output = T>) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        future.as_mut().poll(context).map(|_| true)
    })
    .await
}
