//! Connections that break, or only seem to: what the laws on them come to.

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::Naive;
use derp_kv_conformance::{
    BoxError, Cut, Harness, LAWS, Law, LawReport, Operation, Profile, Time, Verdict, run_law,
};
use derp_kv_core::{Error, ErrorKind, KvStore, Layer, Layered, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::Notify;

/// What becomes of the connection, and of what it carries.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wire {
    /// It breaks, and the store is right about it.
    Breaks,
    /// It breaks, and the store repeats the reads that it cut.
    RepeatsReads,
    /// It never breaks, whatever is asked for.
    Holds,
    /// A scan ends without an error where the connection breaks between its pages.
    ShortScans,
    /// Who waits is told of nothing once the connection broke: nobody subscribes again.
    ForgetsWaiters,
    /// The error tells what was being written.
    ShowsValues,
}

/// A layer that breaks as a connection does. Batches, which name no key to a layer, are not cut.
#[derive(Clone, Debug)]
struct Line {
    wire: Wire,
    store: MemoryStore,
    armed: Arc<Mutex<HashMap<Vec<u8>, Cut>>>,
    broken: Arc<Notify>,
    broke: Arc<Mutex<bool>>,
}

impl Line {
    fn new(wire: Wire, store: &MemoryStore) -> Self {
        let (armed, broken) = (Arc::default(), Arc::default());
        Self { wire, store: store.clone(), armed, broken, broke: Arc::default() }
    }

    fn take(&self, key: &[u8]) -> Option<Cut> {
        let cut = self.armed.lock().unwrap().remove(key)?;
        *self.broke.lock().unwrap() = true;
        self.broken.notify_waiters();
        Some(cut)
    }

    async fn lost(&self, operation: Operation, key: &[u8]) -> Error {
        let mut text = "the connection was lost".to_owned();
        if self.wire == Wire::ShowsValues && operation.writes() {
            let value = self.store.get(key).await.ok().flatten().unwrap_or_default();
            text.push_str(&format!(" under {:02x?}", &value[..]));
        }
        Error::new(ErrorKind::Unavailable, text)
            .with_operation(operation)
            .with_may_have_applied(operation.writes())
    }
}

impl Layer for Line {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let key = key.unwrap_or_default();
        match self.take(key) {
            None => call.await,
            Some(_) if self.wire == Wire::RepeatsReads && !operation.writes() => call.await,
            Some(Cut::Before) => Err(self.lost(operation, key).await),
            Some(_) => {
                call.await?;
                Err(self.lost(operation, key).await)
            }
        }
    }

    fn around_scan(
        &self,
        prefix: &[u8],
        keys: BoxStream<'static, Result<Bytes>>,
    ) -> BoxStream<'static, Result<Bytes>> {
        const PAGE: usize = 1_000;
        let (line, prefix) = (self.clone(), prefix.to_vec());
        let pages = keys.chunks(PAGE).then(move |page| {
            let (line, prefix) = (line.clone(), prefix.clone());
            async move {
                match line.take(&prefix) {
                    Some(_) if line.wire == Wire::ShortScans => Vec::new(),
                    Some(_) if line.wire != Wire::RepeatsReads => {
                        vec![Err(line.lost(Operation::Scan, &prefix).await)]
                    }
                    _ => page,
                }
            }
        });
        pages.take_while(|page| std::future::ready(!page.is_empty())).flat_map(stream::iter).boxed()
    }

    async fn around_wait(&self, _: &[u8], wait: impl Future<Output = ()> + Send) {
        if self.wire != Wire::ForgetsWaiters {
            return wait.await;
        }
        let broken = self.broken.notified();
        let broke = *self.broke.lock().unwrap();
        if !broke {
            tokio::select! {
                () = wait => return,
                () = broken => {}
            }
        }
        std::future::pending().await
    }
}

#[derive(Clone)]
struct Severs(Wire);

#[async_trait]
impl Harness for Severs {
    type Store = Layered<MemoryStore, Line>;
    type Guard = ();

    async fn open(&self) -> Result<(Self::Store, ()), BoxError> {
        let store = MemoryStore::new();
        let line = Line::new(self.0, &store);
        Ok((Layered::new(store, line), ()))
    }

    async fn second_handle(
        &self,
        store: &Self::Store,
        (): &mut (),
    ) -> Result<Self::Store, BoxError> {
        let store = store.inner().clone();
        let line = Line::new(Wire::Breaks, &store);
        Ok(Layered::new(store, line))
    }

    async fn sever(
        &self,
        store: &Self::Store,
        (): &mut (),
        key: &[u8],
        cut: Cut,
    ) -> Result<(), BoxError> {
        if self.0 != Wire::Holds {
            store.layer().armed.lock().unwrap().insert(key.to_vec(), cut);
        }
        Ok(())
    }

    fn time(&self) -> Time {
        Time::Virtual
    }

    fn profile(&self) -> Profile {
        Profile::default().without_seeds()
    }
}

fn on_connections() -> impl Iterator<Item = &'static Law> {
    LAWS.iter().filter(|law| law.area == "connection")
}

fn violated(wire: Wire, law: &str) -> String {
    let report = run_law(Severs(wire), Law::named(law).unwrap());
    match report.verdict {
        Verdict::Violated { observed, .. } => observed,
        _ => panic!("{wire:?}: {report}"),
    }
}

fn assert_all_hold(reports: impl Iterator<Item = LawReport>) {
    for report in reports {
        assert!(matches!(report.verdict, Verdict::Holds), "{report}");
    }
}

#[test]
fn a_store_that_is_right_about_its_connection_keeps_the_laws() {
    for wire in [Wire::Breaks, Wire::RepeatsReads] {
        assert_all_hold(on_connections().map(|law| run_law(Severs(wire), law)));
    }
}

#[test]
fn where_no_call_meets_its_cut_nothing_is_proved() {
    assert_eq!(on_connections().count(), 4);
    for law in on_connections() {
        let report = run_law(Severs(Wire::Holds), law);
        let Verdict::Unproved { why } = &report.verdict else { panic!("{report}") };
        assert!(why.contains("no call met its cut"), "{why}");
    }
}

#[test]
fn a_scan_that_ends_where_its_connection_does_is_noticed() {
    let observed = violated(Wire::ShortScans, "connection::reads_are_right_or_fail");
    assert!(observed.contains("scan"), "{observed}");
}

#[test]
fn a_subscription_that_is_not_renewed_is_noticed() {
    let observed = violated(Wire::ForgetsWaiters, "connection::heals");
    assert!(observed.contains("slept through a change"), "{observed}");
}

#[test]
fn an_error_that_shows_what_was_being_written_is_noticed() {
    let observed = violated(Wire::ShowsValues, "connection::tells_what_was_applied");
    assert!(observed.contains("shows a value"), "{observed}");
}

/// A store without any connection, that says so, has nothing to prove.
#[derive(Clone)]
struct Embedded;

#[async_trait]
impl Harness for Embedded {
    type Store = Naive;
    type Guard = ();

    async fn open(&self) -> Result<(Naive, ()), BoxError> {
        Ok((Naive::default(), ()))
    }

    fn time(&self) -> Time {
        Time::Virtual
    }

    fn profile(&self) -> Profile {
        Profile::default().without_seeds().embedded().case_timeout(Duration::from_secs(20))
    }
}

#[test]
fn a_store_without_a_connection_has_nothing_to_prove() {
    assert_all_hold(on_connections().map(|law| run_law(Embedded, law)));
}
