use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, KvStore, Layer, Layered, Operation, Result};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::newtype::layered_store;

/// What happens to a call that a [`FaultStore`] picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails with [`ErrorKind::Unavailable`] and does nothing.
    FailBefore,
    /// It is applied, and then fails with [`ErrorKind::Timeout`]; where it writes, the error says
    /// that it may have been applied. A scan fails after its last key.
    FailAfter,
    /// It does nothing, and fails with the same error as [`FailAfter`](Self::FailAfter): the
    /// request was lost, and the caller cannot tell.
    Lose,
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
    NthOf { operation: Operation, nth: u64 },
    Random { seed: u64, one_in: u64 },
}

/// A store whose calls fail as planned: what does your code do when the store fails *here*?
///
/// Calls are counted from 0, over all clones; waiting for a change is neither counted nor picked.
/// Flights are the inner store's. No call is made up, made twice, or given another's answer.
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
pub struct FaultStore<S>(Layered<S, Faults>);

layered_store!(FaultStore);

/// Lets calls fail as planned.
#[derive(Clone, Debug)]
struct Faults {
    pick: Pick,
    fault: Fault,
    calls: Arc<AtomicU64>,
    /// Those of the one primitive that is counted apart.
    of_one: Arc<AtomicU64>,
    injected: watch::Sender<Injected>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Injected {
    calls: u64,
    last: Option<Operation>,
}

impl<S: KvStore> FaultStore<S> {
    fn with(inner: S, pick: Pick, fault: Fault) -> Self {
        let faults = Faults {
            pick,
            fault,
            calls: Arc::default(),
            of_one: Arc::default(),
            injected: watch::Sender::default(),
        };
        Self(Layered::new(inner, faults))
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

    /// The call number `nth` of one primitive fails, and no other.
    pub fn nth_of(inner: S, operation: Operation, nth: u64, fault: Fault) -> Self {
        Self::with(inner, Pick::NthOf { operation, nth }, fault)
    }

    /// One call in `one_in` fails, by chance: the same ones for the same seed.
    pub fn randomly(inner: S, seed: u64, one_in: u64, fault: Fault) -> Self {
        Self::with(inner, Pick::Random { seed, one_in: one_in.max(1) }, fault)
    }

    /// The store underneath, whose calls never fail.
    #[must_use]
    pub fn inner(&self) -> &S {
        self.0.inner()
    }

    /// How many calls there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.layer().calls.load(Ordering::SeqCst)
    }

    /// How many of them were picked.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.0.layer().injected.borrow().calls
    }

    /// Which primitive was picked last.
    #[must_use]
    pub fn last_injected(&self) -> Option<Operation> {
        self.0.layer().injected.borrow().last
    }

    /// Waits until `calls` of them were picked: a call that hangs has got that far.
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing.
    pub async fn until_injected(&self, calls: u64) {
        // The sender lives as long as `self`.
        let mut injected = self.0.layer().injected.subscribe();
        let _ = injected.wait_for(|injected| injected.calls >= calls).await;
    }
}

impl Faults {
    fn picked(&self, operation: Operation) -> Option<Fault> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let picked = match self.pick {
            Pick::None => false,
            Pick::Nth(nth) => number == nth,
            Pick::Each(each) => operation == each,
            Pick::NthOf { operation: only, nth } => {
                operation == only && self.of_one.fetch_add(1, Ordering::SeqCst) == nth
            }
            Pick::Random { seed, one_in } => {
                scrambled(seed ^ scrambled(number)).is_multiple_of(one_in)
            }
        };
        picked.then(|| {
            self.injected.send_modify(|injected| {
                injected.calls += 1;
                injected.last = Some(operation);
            });
            self.fault
        })
    }
}

impl Layer for Faults {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match self.picked(operation) {
            None => call.await,
            Some(Fault::FailBefore) => Err(refused(operation)),
            Some(Fault::Lose) => Err(unanswered(operation)),
            Some(Fault::FailAfter) => {
                // Whatever came of it, nobody gets to know.
                let _ = call.await;
                Err(unanswered(operation))
            }
            Some(Fault::Hang) => {
                let _ = call.await;
                std::future::pending().await
            }
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                call.await
            }
        }
    }

    fn around_scan(
        &self,
        _prefix: &[u8],
        keys: BoxStream<'static, Result<Bytes>>,
    ) -> BoxStream<'static, Result<Bytes>> {
        let failing = |error| stream::iter([Err(error)]);
        match self.picked(Operation::Scan) {
            None => keys,
            Some(Fault::FailBefore) => failing(refused(Operation::Scan)).boxed(),
            Some(Fault::Lose) => failing(unanswered(Operation::Scan)).boxed(),
            Some(Fault::FailAfter) => keys.chain(failing(unanswered(Operation::Scan))).boxed(),
            Some(Fault::Hang) => keys.chain(stream::pending()).boxed(),
            Some(Fault::Delay(delay)) => {
                let late = async move {
                    tokio::time::sleep(delay).await;
                    keys
                };
                stream::once(late).flatten().boxed()
            }
        }
    }
}

fn refused(operation: Operation) -> Error {
    Error::new(ErrorKind::Unavailable, "injected: not called").with_operation(operation)
}

fn unanswered(operation: Operation) -> Error {
    Error::new(ErrorKind::Timeout, "injected: no answer")
        .with_operation(operation)
        .with_may_have_applied(operation.writes())
}

/// Steele, Lea and Flood's SplitMix64, of "Fast splittable pseudorandom number generators" (2014).
fn scrambled(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
