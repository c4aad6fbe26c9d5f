//! What the helpers' tests share.
#![allow(dead_code, reason = "each test target uses a part")]

pub(crate) mod hears;
pub(crate) mod scripted;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use derp_kv_core::{
    Error, ErrorKind, Flights, KvStore, Layer, Layered, Operation, Prefixed, Result,
};
use derp_kv_memory::MemoryStore;
use tokio::runtime::Handle;

/// A handle as another process would have: the same data, flights of its own, and an await point
/// before and after each call.
pub(crate) type Process = Layered<MemoryStore, Far>;

#[derive(Clone, Debug)]
pub(crate) struct Far {
    flights: Flights,
}

pub(crate) fn process(data: &MemoryStore) -> Process {
    Layered::new(data.clone(), Far { flights: Flights::new() })
}

impl Layer for Far {
    /// A call takes as long as it takes another task to run.
    async fn around<T: Send>(
        &self,
        _: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        tokio::task::yield_now().await;
        let result = call.await;
        tokio::task::yield_now().await;
        result
    }

    fn flights<'a>(&'a self, _: Option<&'a Flights>) -> Option<&'a Flights> {
        Some(&self.flights)
    }
}

/// A store whose background work has a runtime of its own.
#[derive(Clone, Debug)]
pub(crate) struct Owns(pub(crate) Handle);

impl Layer for Owns {
    fn runtime(&self, _: Option<Handle>) -> Option<Handle> {
        Some(self.0.clone())
    }
}

/// How long a store takes to refuse a call.
pub(crate) const REFUSAL: Duration = Duration::from_secs(1);

/// A handle on a store that refuses writes, being full, or everything, being down.
pub(crate) fn refusing(data: &MemoryStore, kind: ErrorKind) -> Layered<MemoryStore, Refusing> {
    Layered::new(data.clone(), Refusing(kind))
}

#[derive(Clone, Debug)]
pub(crate) struct Refusing(ErrorKind);

impl Layer for Refusing {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if operation.writes() || self.0 == ErrorKind::Unavailable {
            tokio::time::sleep(REFUSAL).await;
            return Err(Error::new(self.0, "refused").with_operation(operation));
        }
        call.await
    }
}

/// One store as its users may hold it.
pub(crate) fn forms_of(data: MemoryStore) -> Vec<Arc<dyn KvStore>> {
    let dynamic: Arc<dyn KvStore> = Arc::new(data.clone());
    vec![
        Arc::new(Prefixed::new(data.clone(), "a:")),
        Arc::new(Prefixed::new(dynamic.clone(), "b:")),
        Arc::new(process(&MemoryStore::new())),
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
