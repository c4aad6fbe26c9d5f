use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{Flights, KvStore, Layer, Layered};
use futures_util::future::try_join_all;

use crate::erased::{AnyHarness, Guard, Store};
use crate::harness::NotProvided;
use crate::progress::{DefaultMethod, Progress};
use crate::violation::{Kind, Violation, with_sources};
use crate::{BoxError, Cut, Time, progress};

/// More callers than connections to begin with.
const WARM: u32 = 16;

/// What one case of a law plays on: a fresh store, and more handles on its data.
pub(crate) struct Scene<'a> {
    pub(crate) store: Store,
    // After the store: a server outlives its clients.
    guard: Guard,
    harness: &'a dyn AnyHarness,
    slack: Duration,
    progress: Arc<Progress>,
}

impl<'a> Scene<'a> {
    pub(crate) async fn open(
        harness: &'a dyn AnyHarness,
        slack: Duration,
        progress: &Arc<Progress>,
    ) -> Result<Self, Violation> {
        let (store, guard) = harness.open().await.map_err(cannot_open)?;
        Ok(Self { store, guard, harness, slack, progress: progress.clone() })
    }

    /// `count` handles on the same data, the first of them the store itself.
    pub(crate) async fn handles(&mut self, count: usize) -> Result<Vec<Store>, Violation> {
        let mut handles = vec![self.store.clone()];
        while handles.len() < count {
            let store = self.second_handle().await?;
            handles.push(Box::new(Layered::new(store, Process { flights: Flights::new() })));
        }
        Ok(handles)
    }

    async fn second_handle(&mut self) -> Result<Store, Violation> {
        let opened = self.harness.second_handle(&self.store, &mut self.guard).await;
        match provided(opened).map_err(cannot_open)? {
            Some(store) => Ok(store),
            None => {
                self.progress.note(DefaultMethod::SecondHandle);
                Ok(self.store.clone())
            }
        }
    }

    /// Makes calls side by side, which leave nothing behind: a store that opens a connection where
    /// all others are busy has several from now on.
    pub(crate) async fn warm(&self) -> Result<(), Violation> {
        let calls = (0..WARM).map(|number| async move {
            let key = format!("warm {number}").into_bytes();
            self.store.get(&key).await?;
            self.store.set(&key, b"", None).await?;
            self.store.delete(&key).await
        });
        try_join_all(calls).await?;
        Ok(())
    }

    /// A store with other data, and what has to live as long.
    pub(crate) async fn another(&self) -> Result<(Store, Guard), Violation> {
        self.harness.open().await.map_err(cannot_open)
    }

    /// Breaks the connection under the next call of the store that names `key`.
    pub(crate) async fn sever(&mut self, key: &[u8], cut: Cut) -> Result<(), Violation> {
        let severed = self.harness.sever(&self.store, &mut self.guard, key, cut).await;
        let failed = |error: BoxError| {
            let error = with_sources(&*error);
            Violation::of(Kind::NotTried, format!("the harness could not sever: {error}"))
        };
        if provided(severed).map_err(failed)?.is_none() {
            self.progress.note(DefaultMethod::Sever);
            return Err(Violation::of(
                Kind::Unproved,
                "the harness breaks no connection (`Harness::sever`), so whether \
                 `may_have_applied` is true of a lost answer is unproved",
            ));
        }
        Ok(())
    }

    /// Lets time pass for the store.
    pub(crate) async fn elapse(&self, duration: Duration) {
        self.harness.elapse(duration).await;
        if progress::take_default_elapse() {
            self.progress.note(DefaultMethod::Elapse);
        }
        // In virtual time, what was due meanwhile in the background has had no turn yet.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    /// Whether the store's clock can be moved.
    pub(crate) fn is_virtual(&self) -> bool {
        self.harness.time() == Time::Virtual
    }

    /// Lets a TTL pass in a race, where time is real also for a store whose clock could be moved.
    pub(crate) async fn outlast(&self, ttl: Duration) {
        // The deadline itself may fall in the middle of a millisecond.
        let duration = ttl + self.slack + Duration::from_millis(2);
        match self.harness.time() {
            Time::Real => self.harness.elapse(duration).await,
            Time::Virtual => tokio::time::sleep(duration).await,
        }
    }

    /// How long after its deadline a key may still show.
    pub(crate) fn slack(&self) -> Duration {
        self.slack
    }
}

/// `None`: the method was left as it is by default.
fn provided<T>(answer: Result<T, BoxError>) -> Result<Option<T>, BoxError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is::<NotProvided>() => Ok(None),
        Err(error) => Err(error),
    }
}

fn cannot_open(error: BoxError) -> Violation {
    let error = with_sources(&*error);
    Violation::of(Kind::NotTried, format!("the harness could not open a store: {error}"))
}

/// Another process around its handle on the data: its flights are its own.
#[derive(Clone, Debug)]
struct Process {
    flights: Flights,
}

impl Layer for Process {
    fn flights<'a>(&'a self, inner: Option<&'a Flights>) -> Option<&'a Flights> {
        // A store that shares no flights does not begin to here.
        inner.map(|_| &self.flights)
    }
}
