use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use tokio::runtime::Handle;

use crate::error::Result;
use crate::observe::observer::Observer;
use crate::operation::Operation;
use crate::singleflight::flights::Flights;
use crate::store::counter::Counter;
use crate::store::expiry::Expiry;
use crate::store::kv_store::KvStore;
use crate::store::step::Step;
use crate::store::step::future::StepFuture;

/// What a [`Layered`] store does around the calls of the store underneath.
///
/// A layer writes what it changes, and nothing must be written. Counting, tracing, injected faults and
/// time-outs are layers of a few lines.
///
/// # Examples
///
/// A layer that gives every call a deadline:
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::{Error, ErrorKind, KvStore, Layer, Layered, Operation, Result};
///
/// #[derive(Clone, Debug)]
/// struct Deadline(Duration);
///
/// impl Layer for Deadline {
///     async fn around<T: Send>(
///         &self,
///         operation: Operation,
///         _key: Option<&[u8]>,
///         call: impl Future<Output = Result<T>> + Send,
///     ) -> Result<T> {
///         tokio::time::timeout(self.0, call).await.unwrap_or_else(|_| {
///             Err(Error::new(ErrorKind::Timeout, "no answer in time")
///                 .with_operation(operation)
///                 .with_may_have_applied(operation.writes()))
///         })
///     }
/// }
///
/// # #[tokio::main] async fn main() -> Result<()> {
/// # let store = derp_kv_memory::MemoryStore::new();
/// let kv = Layered::new(store, Deadline(Duration::from_secs(1)));
/// kv.set(b"k", b"v", None).await?;
/// # Ok(()) }
/// ```
pub trait Layer: fmt::Debug + Send + Sync + 'static {
    /// Makes one call of a primitive, or does something else in its place. By default the call as it is.
    ///
    /// `key` is the key of the call, and none for a batch. The call is a future: it does nothing
    /// until it is awaited, and dropped it is not made.
    ///
    /// # Errors
    ///
    /// Whatever the layer answers in the place of the call.
    ///
    /// # Cancel safety
    ///
    /// A layer that awaits nothing but `call` is as cancel safe as the store.
    fn around<T: Send>(
        &self,
        operation: Operation,
        key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send {
        let _ = (operation, key);
        call
    }

    /// Makes a scan, or another stream in its place. By default the scan as it is.
    fn around_scan(
        &self,
        prefix: &[u8],
        keys: BoxStream<'static, Result<Bytes>>,
    ) -> BoxStream<'static, Result<Bytes>> {
        let _ = prefix;
        keys
    }

    /// Waits for a change, which has no way to fail. By default the wait as it is.
    fn around_wait(
        &self,
        key: &[u8],
        wait: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = ()> + Send {
        let _ = key;
        wait
    }

    /// The flights that callers share. By default those of the store underneath.
    fn flights<'a>(&'a self, inner: Option<&'a Flights>) -> Option<&'a Flights> {
        inner
    }

    /// Where background work runs. By default where that of the store underneath does.
    fn runtime(&self, inner: Option<Handle>) -> Option<Handle> {
        inner
    }

    /// Who hears what the helpers do. By default the observer of the store underneath.
    fn observer<'a>(&'a self, inner: Option<&'a dyn Observer>) -> Option<&'a dyn Observer> {
        inner
    }
}

/// A store with a [`Layer`] around it: the one way to wrap a store.
///
/// What the layer does not change is the store's own: its flights, its runtime, its observer.
#[derive(Clone, Debug)]
pub struct Layered<S, L> {
    inner: S,
    layer: L,
}

impl<S: KvStore, L: Layer> Layered<S, L> {
    /// Puts `layer` around `inner`.
    pub fn new(inner: S, layer: L) -> Self {
        Self { inner, layer }
    }

    /// The store underneath, whose calls do not go through the layer.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The layer.
    #[must_use]
    pub fn layer(&self) -> &L {
        &self.layer
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: KvStore, L: Layer> KvStore for Layered<S, L> {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.layer.around(Operation::Get, Some(key), self.inner.get(key)).await
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        self.layer.around(Operation::GetWithTtl, Some(key), self.inner.get_with_ttl(key)).await
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        self.layer.around(Operation::Exists, Some(key), self.inner.exists(key)).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.layer.around(Operation::Ttl, Some(key), self.inner.ttl(key)).await
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.layer.around(Operation::Mget, None, self.inner.mget(keys)).await
    }

    fn scan(&self, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        self.layer.around_scan(prefix, self.inner.scan(prefix))
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        self.layer.around(Operation::Set, Some(key), self.inner.set(key, value, ttl)).await
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        self.layer.around(Operation::Mset, None, self.inner.mset(items, ttl)).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.layer.around(Operation::Delete, Some(key), self.inner.delete(key)).await
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        self.layer.around(Operation::DeleteMany, None, self.inner.delete_many(keys)).await
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        self.layer.around(Operation::Expire, Some(key), self.inner.expire(key, ttl)).await
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        self.layer.around(Operation::SetNx, Some(key), self.inner.set_nx(key, value, ttl)).await
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        self.layer.around(Operation::Incr, Some(key), self.inner.incr(key, by, ttl)).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        let swap = self.inner.compare_and_set(key, expected, value, ttl);
        self.layer.around(Operation::CompareAndSet, Some(key), swap).await
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        let delete = self.inner.compare_and_delete(key, expected);
        self.layer.around(Operation::CompareAndDelete, Some(key), delete).await
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        self.layer.around_wait(key, self.inner.wait_for_change(key, seen, at_most)).await;
    }

    fn step<'a>(&'a self, key: &'a [u8], step: &'a Step) -> StepFuture<'a> {
        StepFuture::new(self.layer.around(Operation::Step, Some(key), self.inner.step(key, step)))
    }

    fn flights(&self) -> Option<&Flights> {
        self.layer.flights(self.inner.flights())
    }

    fn runtime(&self) -> Option<Handle> {
        self.layer.runtime(self.inner.runtime())
    }

    fn observer(&self) -> Option<&dyn Observer> {
        self.layer.observer(self.inner.observer())
    }
}
