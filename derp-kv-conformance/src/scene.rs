use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, Flights, KvStore, Result};
use futures_core::stream::BoxStream;

use crate::violation::Violation;
use crate::wrap::wrap_store;
use crate::{Harness, Operation};

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
        let mut handles = vec![Handle { inner: self.store.clone(), flights: None }];
        while handles.len() < count {
            let store = self
                .harness
                .second_handle(&self.store, &mut self.guard)
                .await
                .map_err(|error| cannot_open(&*error))?;
            handles.push(Handle { inner: store, flights: Some(Arc::new(Flights::new())) });
        }
        Ok(handles)
    }

    /// A store with other data, and what has to live as long.
    pub(crate) async fn another(&self) -> Result<(H::Store, H::Guard), Violation> {
        self.harness.open().await.map_err(|error| cannot_open(&*error))
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
    inner: S,
    /// None: the store's.
    flights: Option<Arc<Flights>>,
}

impl<S: KvStore> Handle<S> {
    async fn around<T>(
        &self,
        _: Operation,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        call.await
    }

    fn around_scan<'a>(
        &'a self,
        keys: BoxStream<'a, Result<Bytes>>,
    ) -> BoxStream<'a, Result<Bytes>> {
        keys
    }

    fn before_wait(&self) {}

    fn shared_flights(&self) -> Option<&Flights> {
        let shared = self.inner.flights()?;
        Some(self.flights.as_deref().unwrap_or(shared))
    }
}

wrap_store!(Handle);
