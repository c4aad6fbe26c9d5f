use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::runtime::Handle;

use crate::error::Result;
use crate::observe::observer::Observer;
use crate::singleflight::flights::Flights;
use crate::store::counter::Counter;
use crate::store::expiry::Expiry;
use crate::store::kv_store::KvStore;
use crate::store::step::Step;
use crate::store::step::future::StepFuture;

/// A store whose keys all live under a byte prefix of another store.
///
/// Give each tenant one: no key of one reaches a key of another, as long as no prefix is the
/// beginning of another prefix (end each with a separator that ids cannot hold, such as `:`).
/// [`scan`](KvStore::scan) yields keys without the prefix, as they were written here.
///
/// It is a cheap handle: make one for each request. The in-process [`flights`](KvStore::flights) are
/// the inner store's, under the full keys: two tenants never share a computation, and two handles
/// of one tenant always do.
///
/// Laws: `prefix::isolates`, `prefix::scan_strips`, `prefix::flights_are_its_own`.
///
/// # Examples
///
/// ```
/// # use derp_kv_core::{KvStore, Prefixed, Result};
/// # async fn example(kv: derp_kv_memory::MemoryStore) -> Result<()> {
/// let acme = Prefixed::new(kv.clone(), "acme:");
/// acme.set(b"name", b"Acme", None).await?;
/// assert_eq!(kv.get(b"acme:name").await?.as_deref(), Some(&b"Acme"[..]));
/// # Ok(()) }
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
/// #     .block_on(example(derp_kv_memory::MemoryStore::new())).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Prefixed<S> {
    inner: S,
    prefix: Bytes,
    flights: Option<Flights>,
}

impl<S: KvStore> Prefixed<S> {
    /// A view of `inner` in which every key is under `prefix`.
    pub fn new(inner: S, prefix: impl AsRef<[u8]>) -> Self {
        let prefix = Bytes::copy_from_slice(prefix.as_ref());
        let flights = inner.flights().map(|flights| flights.under(&prefix));
        Self { inner, prefix, flights }
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The store underneath, which sees all keys.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: KvStore> KvStore for Prefixed<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.inner.get(&self.key(key)).await
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        self.inner.get_with_ttl(&self.key(key)).await
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        self.inner.exists(&self.key(key)).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.inner.ttl(&self.key(key)).await
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let keys: Vec<_> = keys.iter().map(|key| self.key(key)).collect();
        self.inner.mget(&slices(&keys)).await
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        let strip = self.prefix.len();
        self.inner
            .scan(&self.key(prefix))
            .map(move |key| key.map(|key| key.slice(strip.min(key.len())..)))
            .boxed()
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        self.inner.set(&self.key(key), value, ttl).await
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        let keys: Vec<_> = items.iter().map(|(key, _)| self.key(key)).collect();
        let items: Vec<_> = keys.iter().zip(items).map(|(key, item)| (&key[..], item.1)).collect();
        self.inner.mset(&items, ttl).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.inner.delete(&self.key(key)).await
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        let keys: Vec<_> = keys.iter().map(|key| self.key(key)).collect();
        self.inner.delete_many(&slices(&keys)).await
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        self.inner.expire(&self.key(key), ttl).await
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        self.inner.set_nx(&self.key(key), value, ttl).await
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        self.inner.incr(&self.key(key), by, ttl).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        self.inner.compare_and_set(&self.key(key), expected, value, ttl).await
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.inner.compare_and_delete(&self.key(key), expected).await
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        self.inner.wait_for_change(&self.key(key), seen, at_most).await;
    }

    fn step<'a>(&'a self, key: &'a [u8], step: &'a Step) -> StepFuture<'a> {
        StepFuture::new(async move { self.inner.step(&self.key(key), step).await })
    }

    fn flights(&self) -> Option<&Flights> {
        self.flights.as_ref()
    }

    fn runtime(&self) -> Option<Handle> {
        self.inner.runtime()
    }

    fn observer(&self) -> Option<&dyn Observer> {
        self.inner.observer()
    }
}

fn slices(keys: &[Vec<u8>]) -> Vec<&[u8]> {
    keys.iter().map(Vec::as_slice).collect()
}
