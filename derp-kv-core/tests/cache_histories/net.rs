//! The way from a process to the store: it takes time, and loses requests and answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, Flights, Layer, Layered, Operation, Result};
use derp_kv_memory::MemoryStore;
use tokio::time::sleep;

use crate::dice::Dice;

/// A handle on the shared data, with flights of its own as another process has them.
pub(crate) type Process = Layered<MemoryStore, Net>;

#[derive(Clone, Debug)]
pub(crate) struct Net {
    flights: Flights,
    dice: Arc<Mutex<Dice>>,
    /// The most that each way takes.
    latency: Duration,
    /// In how many of a hundred calls something is lost.
    loses: u64,
}

impl Net {
    pub(crate) fn process(data: &MemoryStore, seed: u64, latency: Duration, loses: u64) -> Process {
        let dice = Arc::new(Mutex::new(Dice::new(seed)));
        Layered::new(data.clone(), Self { flights: Flights::new(), dice, latency, loses })
    }

    async fn way(&self) {
        let most = u64::try_from(self.latency.as_millis()).unwrap();
        let takes = self.dice.lock().unwrap().millis(0..most + 1);
        if takes.is_zero() {
            tokio::task::yield_now().await;
        } else {
            sleep(takes).await;
        }
    }

    fn loses(&self) -> bool {
        self.dice.lock().unwrap().chance(self.loses)
    }
}

impl Layer for Net {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.way().await;
        if self.loses() {
            let error = Error::new(ErrorKind::Unavailable, "the request was lost");
            return Err(error.with_operation(operation));
        }
        let answer = call.await;
        self.way().await;
        if self.loses() {
            let error = Error::new(ErrorKind::Timeout, "the answer was lost");
            return Err(error.with_operation(operation).with_may_have_applied(operation.writes()));
        }
        answer
    }

    fn flights<'a>(&'a self, _: Option<&'a Flights>) -> Option<&'a Flights> {
        Some(&self.flights)
    }
}
