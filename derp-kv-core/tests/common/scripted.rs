//! A store whose every call a test can fail or hold up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use derp_kv_core::{Error, ErrorKind, Flights, Layer, Layered, Operation, Result};
use derp_kv_memory::MemoryStore;
use tokio::sync::Semaphore;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Refused: nothing was done.
    Before,
    /// Done, and the answer is lost.
    After,
}

/// A handle on shared data, with flights of its own as another process has them.
pub(crate) type Scripted = Layered<MemoryStore, Plan>;

/// What the calls of a [`Scripted`] handle go through.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    flights: Flights,
    script: Arc<Script>,
}

/// A handle whose calls go through as they come.
pub(crate) fn scripted(data: &MemoryStore) -> Scripted {
    Layered::new(data.clone(), Plan { flights: Flights::new(), script: Arc::default() })
}

/// A handle whose calls wait until [`step`](Plan::step) lets one through.
pub(crate) fn gated(data: &MemoryStore) -> Scripted {
    let gate = Gate { steps: Semaphore::new(0), waiting: AtomicUsize::new(0) };
    let script = Script { gate: Some(gate), ..Script::default() };
    Layered::new(data.clone(), Plan { flights: Flights::new(), script: Arc::new(script) })
}

/// A handle of the same process as `kv`, whose calls wait at a gate of their own.
pub(crate) fn gated_beside(data: &MemoryStore, kv: &Scripted) -> Scripted {
    let Plan { script, .. } = gated(data).layer().clone();
    Layered::new(data.clone(), Plan { flights: kv.layer().flights.clone(), script })
}

#[derive(Debug, Default)]
struct Script {
    /// The operations so far, in order.
    calls: Mutex<Vec<Operation>>,
    failure: Mutex<Option<(usize, Failure)>>,
    gate: Option<Gate>,
}

/// Where calls wait for their turn.
#[derive(Debug)]
struct Gate {
    steps: Semaphore,
    waiting: AtomicUsize,
}

/// A call at the gate, until it goes through or is dropped.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn at(gate: &'a Gate) -> Self {
        gate.waiting.fetch_add(1, Ordering::SeqCst);
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Plan {
    /// Fails the call with this number, counted from 0 over all operations.
    pub(crate) fn fail(&self, number: usize, failure: Failure) {
        *self.script.failure.lock().unwrap() = Some((number, failure));
    }

    /// Fails the next call.
    pub(crate) fn fail_next(&self, failure: Failure) {
        self.fail(self.calls().len(), failure);
    }

    /// The operation that was failed, once it was called.
    pub(crate) fn failed(&self) -> Option<Operation> {
        let (number, _) = (*self.script.failure.lock().unwrap())?;
        self.calls().get(number).copied()
    }

    pub(crate) fn calls(&self) -> Vec<Operation> {
        self.script.calls.lock().unwrap().clone()
    }

    /// How many calls wait at the gate.
    pub(crate) fn waiting(&self) -> usize {
        self.script.gate.as_ref().map_or(0, |gate| gate.waiting.load(Ordering::SeqCst))
    }

    /// Lets one call through.
    pub(crate) fn step(&self) {
        if let Some(gate) = &self.script.gate {
            gate.steps.add_permits(1);
        }
    }

    /// A step of the test's own, which takes its turn as calls do.
    pub(crate) async fn turn(&self) {
        let Some(gate) = &self.script.gate else { return };
        let _waiting = Waiting::at(gate);
        gate.steps.acquire().await.unwrap().forget();
    }
}

impl Layer for Plan {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.turn().await;
        let number = {
            let mut calls = self.script.calls.lock().unwrap();
            calls.push(operation);
            calls.len() - 1
        };
        tokio::task::yield_now().await;
        let failure = *self.script.failure.lock().unwrap();
        match failure {
            Some((failing, Failure::Before)) if failing == number => {
                let error = Error::new(ErrorKind::Unavailable, "refused by the test");
                Err(error.with_operation(operation))
            }
            Some((failing, Failure::After)) if failing == number => {
                let _ = call.await;
                Err(Error::new(ErrorKind::Timeout, "the test lost the answer")
                    .with_operation(operation)
                    .with_may_have_applied(operation.writes()))
            }
            _ => call.await,
        }
    }

    fn flights<'a>(&'a self, _: Option<&'a Flights>) -> Option<&'a Flights> {
        Some(&self.flights)
    }
}
