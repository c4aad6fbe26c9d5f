use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, Flights, KvStore, Result};
use futures_core::stream::BoxStream;

use crate::Harness;
use crate::violation::Violation;

/// What one case of a law plays on: a fresh store, and more handles on its data.
pub(crate) struct Scene<'a, H: Harness> {
    pub(crate) store: H::Store,
    // After the store: a server outlives its clients.
    guard: H::Guard,
    harness: &'a H,
    slack: Duration,
}

impl<'a, H: Harness> Scene<'a, H> {
    pub(crate) async fn open(harness: &'a H, slack: Duration) -> Result<Self, Violation> {
        let (store, guard) = harness.open().await.map_err(|error| cannot_open(&*error))?;
        Ok(Self { store, guard, harness, slack })
    }

    /// `count` handles on the same data, the first of them the store itself.
    pub(crate) async fn handles(
        &mut self,
        count: usize,
    ) -> Result<Vec<Handle<H::Store>>, Violation> {
        let mut handles = vec![Handle { store: self.store.clone(), flights: None }];
        while handles.len() < count {
            let store = self
                .harness
                .second_handle(&self.store, &mut self.guard)
                .await
                .map_err(|error| cannot_open(&*error))?;
            handles.push(Handle { store, flights: Some(Arc::new(Flights::new())) });
        }
        Ok(handles)
    }

    /// Lets time pass for the store.
    pub(crate) async fn elapse(&self, duration: Duration) {
        self.harness.elapse(duration).await;
        // In virtual time, what was due meanwhile in the background has had no turn yet.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    /// How long after its deadline a key may still show.
    pub(crate) fn slack(&self) -> Duration {
        self.slack
    }
}

fn cannot_open(error: &(dyn std::error::Error + 'static)) -> Violation {
    let error = crate::violation::with_sources(error);
    Violation::new(format!("the harness could not open a store: {error}"))
}

/// One process's handle on the data: its flights are its own.
#[derive(Clone, Debug)]
pub(crate) struct Handle<S> {
    store: S,
    /// None: the store's.
    flights: Option<Arc<Flights>>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: KvStore> KvStore for Handle<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.store.get(key).await
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        self.store.get_with_ttl(key).await
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        self.store.exists(key).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.store.ttl(key).await
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.store.mget(keys).await
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'_, Result<Bytes>> {
        self.store.scan(prefix)
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        self.store.set(key, value, ttl).await
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        self.store.mset(items, ttl).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.store.delete(key).await
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        self.store.delete_many(keys).await
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        self.store.expire(key, ttl).await
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        self.store.set_nx(key, value, ttl).await
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        self.store.incr(key, by, ttl).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        self.store.compare_and_set(key, expected, value, ttl).await
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.store.compare_and_delete(key, expected).await
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        self.store.wait_for_change(key, seen, at_most).await;
    }

    fn flights(&self) -> Option<&Flights> {
        let shared = self.store.flights()?;
        Some(self.flights.as_deref().unwrap_or(shared))
    }
}
