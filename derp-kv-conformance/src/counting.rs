use std::fmt;
use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use derp_kv_core::{KvStore, Layer, Layered, Operation, Result};
use futures_core::stream::BoxStream;

use crate::newtype::layered_store;

const PRIMITIVES: usize = Operation::PRIMITIVES.len();

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
/// kv.already_processed("evt_1", &Dedup::default()).await?;
/// let counts = kv.take();
/// assert_eq!((counts.total(), counts.of(Operation::SetNx)), (1, 1));
///
/// let before = kv.counts();
/// kv.already_processed("evt_1", &Dedup::default()).await?;
/// assert_eq!(kv.counts() - before, Counts::from([(Operation::SetNx, 1)]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CountingStore<S>(Layered<S, Counting>);

layered_store!(CountingStore);

/// Counts the calls that it lets through.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<[AtomicU64; PRIMITIVES]>);

impl<S: KvStore> CountingStore<S> {
    /// Counts the calls that go to `inner`.
    pub fn new(inner: S) -> Self {
        Self(Layered::new(inner, Counting::default()))
    }

    /// The store underneath, whose calls are not counted.
    #[must_use]
    pub fn inner(&self) -> &S {
        self.0.inner()
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counts = &self.0.layer().0;
        Counts(std::array::from_fn(|at| counts[at].load(Ordering::SeqCst)))
    }

    /// What was counted since the last time, and counts from zero again.
    #[must_use]
    pub fn take(&self) -> Counts {
        let counts = &self.0.layer().0;
        Counts(std::array::from_fn(|at| counts[at].swap(0, Ordering::SeqCst)))
    }
}

impl Counting {
    fn count(&self, operation: Operation) {
        if let Some(count) = place(operation).and_then(|at| self.0.get(at)) {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Layer for Counting {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.count(operation);
        call.await
    }

    fn around_scan(
        &self,
        _prefix: &[u8],
        keys: BoxStream<'static, Result<Bytes>>,
    ) -> BoxStream<'static, Result<Bytes>> {
        self.count(Operation::Scan);
        keys
    }

    async fn around_wait(&self, _key: &[u8], wait: impl Future<Output = ()> + Send) {
        self.count(Operation::WaitForChange);
        wait.await;
    }
}

/// Where the primitive is counted; none for a helper, which is made of primitives.
fn place(operation: Operation) -> Option<usize> {
    Operation::PRIMITIVES.iter().position(|primitive| *primitive == operation)
}

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
pub struct Counts([u64; PRIMITIVES]);

impl Counts {
    /// Calls of one primitive. A helper is counted by the primitives that it calls.
    #[must_use]
    pub fn of(&self, operation: Operation) -> u64 {
        place(operation).map_or(0, |at| self.0[at])
    }

    /// Calls of all primitives but [`wait_for_change`](Operation::WaitForChange), which waits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum::<u64>() - self.of(Operation::WaitForChange)
    }

    fn called(&self) -> impl Iterator<Item = (Operation, u64)> {
        Operation::PRIMITIVES.into_iter().zip(self.0).filter(|(_, calls)| *calls > 0)
    }
}

impl<const N: usize> From<[(Operation, u64); N]> for Counts {
    /// An operation that is named twice has the sum.
    ///
    /// # Panics
    ///
    /// Where an operation is a helper: it is never counted, and no test may expect that it is.
    fn from(calls: [(Operation, u64); N]) -> Self {
        let mut counts = Self::default();
        for (operation, calls) in calls {
            let at = place(operation).unwrap_or_else(|| {
                panic!("`{operation}` is a helper: only primitives are counted")
            });
            counts.0[at] += calls;
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
