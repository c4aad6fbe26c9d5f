use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Error, ErrorKind, Expiry, Flights, KvStore, Result};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::Operation;

/// What happens to a call that a [`FaultStore`] picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails with [`ErrorKind::Unavailable`] and does nothing.
    FailBefore,
    /// It is applied, and then fails with [`ErrorKind::Timeout`]; where it writes, the error says
    /// that it may have been applied.
    FailAfter,
    /// It is applied, and never answers.
    Hang,
    /// It waits, and then goes on as ever.
    Delay(Duration),
}

#[derive(Clone, Copy, Debug)]
enum Pick {
    None,
    Nth(u64),
    Each(Operation),
    Random { seed: u64, one_in: u64 },
}

/// A store whose calls fail as planned: what does your code do when the store fails *here*?
///
/// Calls are counted from 0, over all clones; waiting for a change is neither counted nor picked.
/// Flights are the inner store's.
///
/// # Examples
///
/// ```
/// use derp_kv_conformance::{Fault, FaultStore};
/// use derp_kv_core::KvStore;
/// use derp_kv_memory::MemoryStore;
///
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// let kv = FaultStore::nth(MemoryStore::new(), 1, Fault::FailAfter);
/// assert_eq!(kv.incr(b"n", 1, None).await?.value, 1);
/// let error = kv.incr(b"n", 1, None).await.unwrap_err();
/// assert!(error.may_have_applied());
/// assert_eq!(kv.incr(b"n", 1, None).await?.value, 3);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct FaultStore<S> {
    inner: S,
    pick: Pick,
    fault: Fault,
    calls: Arc<AtomicU64>,
    injected: Arc<AtomicU64>,
}

impl<S: KvStore> FaultStore<S> {
    fn with(inner: S, pick: Pick, fault: Fault) -> Self {
        Self { inner, pick, fault, calls: Arc::default(), injected: Arc::default() }
    }

    /// No call fails; they are counted.
    pub fn none(inner: S) -> Self {
        Self::with(inner, Pick::None, Fault::FailBefore)
    }

    /// The call number `nth` fails, and no other.
    pub fn nth(inner: S, nth: u64, fault: Fault) -> Self {
        Self::with(inner, Pick::Nth(nth), fault)
    }

    /// Each call of one primitive fails.
    pub fn each(inner: S, operation: Operation, fault: Fault) -> Self {
        Self::with(inner, Pick::Each(operation), fault)
    }

    /// One call in `one_in` fails, by chance: the same ones for the same seed.
    pub fn randomly(inner: S, seed: u64, one_in: u64, fault: Fault) -> Self {
        Self::with(inner, Pick::Random { seed, one_in: one_in.max(1) }, fault)
    }

    /// The store underneath, whose calls never fail.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// How many calls there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many of them were picked.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::SeqCst)
    }

    fn picked(&self, operation: Operation) -> Option<Fault> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let picked = match self.pick {
            Pick::None => false,
            Pick::Nth(nth) => number == nth,
            Pick::Each(each) => operation == each,
            Pick::Random { seed, one_in } => {
                scrambled(seed ^ scrambled(number)).is_multiple_of(one_in)
            }
        };
        picked.then(|| {
            self.injected.fetch_add(1, Ordering::SeqCst);
            self.fault
        })
    }

    async fn run<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match self.picked(operation) {
            None => call.await,
            Some(Fault::FailBefore) => Err(refused(operation)),
            Some(Fault::FailAfter) => {
                call.await?;
                Err(unanswered(operation))
            }
            Some(Fault::Hang) => {
                call.await?;
                std::future::pending().await
            }
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                call.await
            }
        }
    }
}

fn refused(operation: Operation) -> Error {
    Error::new(ErrorKind::Unavailable, "injected before the call").with_operation(operation.name())
}

fn unanswered(operation: Operation) -> Error {
    Error::new(ErrorKind::Timeout, "injected after the call")
        .with_operation(operation.name())
        .with_may_have_applied(operation.writes())
}

/// Steele, Lea and Flood's SplitMix64, of "Fast splittable pseudorandom number generators" (2014).
fn scrambled(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: KvStore> KvStore for FaultStore<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.run(Operation::Get, self.inner.get(key)).await
    }

    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        self.run(Operation::GetWithTtl, self.inner.get_with_ttl(key)).await
    }

    async fn exists(&self, key: &[u8]) -> Result<bool> {
        self.run(Operation::Exists, self.inner.exists(key)).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.run(Operation::Ttl, self.inner.ttl(key)).await
    }

    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.run(Operation::Mget, self.inner.mget(keys)).await
    }

    /// A scan that is picked fails before its first key, or after its last one.
    fn scan(&self, prefix: &[u8]) -> BoxStream<'_, Result<Bytes>> {
        let keys = self.inner.scan(prefix);
        match self.picked(Operation::Scan) {
            None => keys,
            Some(Fault::FailBefore) => {
                stream::once(async { Err(refused(Operation::Scan)) }).boxed()
            }
            Some(Fault::FailAfter) => {
                keys.chain(stream::once(async { Err(unanswered(Operation::Scan)) })).boxed()
            }
            Some(Fault::Hang) => keys.chain(stream::pending()).boxed(),
            Some(Fault::Delay(delay)) => stream::once(async move {
                tokio::time::sleep(delay).await;
                Ok(keys)
            })
            .try_flatten()
            .boxed(),
        }
    }

    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        self.run(Operation::Set, self.inner.set(key, value, ttl)).await
    }

    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        self.run(Operation::Mset, self.inner.mset(items, ttl)).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.run(Operation::Delete, self.inner.delete(key)).await
    }

    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        self.run(Operation::DeleteMany, self.inner.delete_many(keys)).await
    }

    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        self.run(Operation::Expire, self.inner.expire(key, ttl)).await
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        self.run(Operation::SetNx, self.inner.set_nx(key, value, ttl)).await
    }

    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        self.run(Operation::Incr, self.inner.incr(key, by, ttl)).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        let call = self.inner.compare_and_set(key, expected, value, ttl);
        self.run(Operation::CompareAndSet, call).await
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.run(Operation::CompareAndDelete, self.inner.compare_and_delete(key, expected)).await
    }

    async fn wait_for_change(&self, key: &[u8], seen: Option<&[u8]>, at_most: Duration) {
        self.inner.wait_for_change(key, seen, at_most).await;
    }

    fn flights(&self) -> Option<&Flights> {
        self.inner.flights()
    }
}
