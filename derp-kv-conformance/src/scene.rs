use std::time::Duration;

use derp_kv_core::{Flights, Layer, Layered, Operation};

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
        let mut handles = vec![Layered::new(self.store.clone(), Process { flights: None })];
        while handles.len() < count {
            let store = self
                .harness
                .second_handle(&self.store, &mut self.guard)
                .await
                .map_err(|error| cannot_open(&*error))?;
            handles.push(Layered::new(store, Process { flights: Some(Flights::new()) }));
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
pub(crate) type Handle<S> = Layered<S, Process>;

#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// None: the store's.
    flights: Option<Flights>,
}

impl Layer for Process {
    async fn around<T: Send>(
        &self,
        _operation: Operation,
        _key: Option<&[u8]>,
        call: impl Future<Output = derp_kv_core::Result<T>> + Send,
    ) -> derp_kv_core::Result<T> {
        call.await
    }

    fn flights<'a>(&'a self, inner: Option<&'a Flights>) -> Option<&'a Flights> {
        // A store that shares no flights does not begin to here.
        inner.map(|shared| self.flights.as_ref().unwrap_or(shared))
    }
}
