use std::fmt;
use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, Flights, KvStore, Result};
use futures_core::stream::BoxStream;

use crate::Operation;
use crate::wrap::wrap_store;

/// A store that counts the calls of each primitive: exact budgets for your own tests.
///
/// Clones count together. A call counts when it is first polled, whether it then succeeds or not,
/// and a batch counts once. Flights are the inner store's.
///
/// # Examples
///
/// ```
/// use derp_kv_conformance::{CountingStore, Counts, Operation};
/// use derp_kv_core::{Dedup, KvStoreExt};
/// use derp_kv_memory::MemoryStore;
///
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// let kv = CountingStore::new(MemoryStore::new());
/// kv.already_processed("evt_1", Dedup::default()).await?;
/// let counts = kv.take();
/// assert_eq!((counts.total(), counts.of(Operation::SetNx)), (1, 1));
///
/// let before = kv.counts();
/// kv.already_processed("evt_1", Dedup::default()).await?;
/// assert_eq!(kv.counts() - before, Counts::from([(Operation::SetNx, 1)]));
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

    fn count(&self, operation: Operation) {
        self.counts[operation as usize].fetch_add(1, Ordering::SeqCst);
    }

    fn shared_flights(&self) -> Option<&Flights> {
        self.inner.flights()
    }

    fn before_wait(&self) {
        self.count(Operation::WaitForChange);
    }

    async fn around<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.count(operation);
        call.await
    }

    fn around_scan<'a>(&self, keys: BoxStream<'a, Result<Bytes>>) -> BoxStream<'a, Result<Bytes>> {
        self.count(Operation::Scan);
        keys
    }
}

wrap_store!(CountingStore);

/// How often each primitive was called: what was counted, or what a test expects.
///
/// It prints as a table of those that were called.
///
/// # Examples
///
/// ```
/// use derp_kv_conformance::{Counts, Operation};
///
/// let counts = Counts::from([(Operation::Get, 12), (Operation::SetNx, 1)]);
/// assert_eq!(counts.to_string(), "\
/// operation           calls
/// get                    12
/// set_nx                  1
/// total                  13");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
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

    fn called(&self) -> impl Iterator<Item = (Operation, u64)> {
        Operation::ALL.into_iter().zip(self.0).filter(|(_, calls)| *calls > 0)
    }
}

impl<const N: usize> From<[(Operation, u64); N]> for Counts {
    /// An operation that is named twice has the sum.
    fn from(calls: [(Operation, u64); N]) -> Self {
        let mut counts = Self::default();
        for (operation, calls) in calls {
            counts.0[operation as usize] += calls;
        }
        counts
    }
}

impl Sub for Counts {
    type Output = Self;

    /// The calls since `earlier`; none where there are fewer, after a [`CountingStore::take`].
    fn sub(self, earlier: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].saturating_sub(earlier.0[at])))
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.called()).finish()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:18}  {:>5}", "operation", "calls")?;
        for (operation, calls) in self.called() {
            writeln!(f, "{operation:18}  {calls:>5}")?;
        }
        write!(f, "{:18}  {:>5}", "total", self.total())
    }
}
