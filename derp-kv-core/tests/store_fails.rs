//! `guarded_get` on a store that is down, full or too small: never worse than without it.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::hears::Hears;
use derp_kv_conformance::{CountingStore, Fault, FaultStore, Operation};
use derp_kv_core::{
    Error, ErrorKind, GuardedGet, KvStore, KvStoreExt, Layer, Layered, Observer, OnStoreError,
    Prefixed, Result,
};
use derp_kv_memory::MemoryStore;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(2);
const QUERY: Duration = Duration::from_millis(50);
const TTL: Duration = Duration::from_secs(300);

/// A store that is down: each call ends with its deadline.
#[derive(Clone, Debug)]
struct Down;

impl Layer for Down {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _: Option<&[u8]>,
        _: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        sleep(DEADLINE).await;
        Err(Error::new(ErrorKind::Timeout, "no answer in time").with_operation(operation))
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_store_is_down_a_call_costs_one_deadline() {
    let kv = Layered::new(MemoryStore::new(), Down);
    let queries = AtomicU32::new(0);
    let options = GuardedGet::new(TTL).on_store_error(OnStoreError::Compute);
    let call = || {
        kv.guarded_get("k", &options, || async {
            queries.fetch_add(1, Ordering::SeqCst);
            sleep(QUERY).await;
            Ok::<_, Error>("value")
        })
    };
    let began = Instant::now();
    assert_eq!(call().await.unwrap(), "value");
    assert_eq!(began.elapsed(), DEADLINE + QUERY);

    let began = Instant::now();
    for value in join_all((0..50).map(|_| call())).await {
        assert_eq!(value.unwrap(), "value");
    }
    assert_eq!(began.elapsed(), DEADLINE + QUERY);
    assert_eq!(queries.load(Ordering::SeqCst), 2, "one at a time a process");
}

/// Refuses to write so large a value, as a server does that has a limit; heard by an observer.
#[derive(Clone, Debug)]
struct Refuses {
    above: usize,
    kind: ErrorKind,
    only: Operation,
    hears: Hears,
}

impl Layer for Refuses {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if operation == self.only && key.is_some_and(|key| key.len() > self.above) {
            return Err(Error::new(self.kind, "refused by the test").with_operation(operation));
        }
        call.await
    }

    fn observer<'a>(&'a self, _: Option<&'a dyn Observer>) -> Option<&'a dyn Observer> {
        Some(&self.hears)
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_the_store_does_not_take_goes_to_everybody_and_is_reported() {
    for (only, kind) in [
        (Operation::SetNx, ErrorKind::Full),
        (Operation::Set, ErrorKind::Full),
        (Operation::Set, ErrorKind::InvalidArgument),
    ] {
        let hears = Hears::default();
        let layer = Refuses { above: 0, kind, only, hears: hears.clone() };
        let kv = Layered::new(MemoryStore::new(), layer);
        let (options, queries) = (GuardedGet::new(TTL), AtomicU32::new(0));
        let call = || {
            kv.guarded_get("k", &options, || async {
                queries.fetch_add(1, Ordering::SeqCst);
                sleep(QUERY).await;
                Ok::<_, Error>("value")
            })
        };
        for value in join_all((0..50).map(|_| call())).await {
            assert_eq!(value.unwrap(), "value");
        }
        assert_eq!(queries.load(Ordering::SeqCst), 1, "{only} {kind}");
        assert_eq!(kv.get(b"k").await.unwrap(), None);
        let heard = hears.take();
        let told: Vec<_> = heard.iter().filter(|line| line.contains("not kept")).collect();
        assert_eq!(told, [&format!("guarded_get: not kept, {}", kind.name())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handle_made_for_each_request_costs_what_one_handle_costs() {
    let mut costs = Vec::new();
    for each in [false, true] {
        let kv = CountingStore::new(MemoryStore::new());
        let one = Prefixed::new(kv.clone(), "acme:");
        let (options, queries) = (GuardedGet::new(TTL), AtomicU32::new(0));
        // The first of them finds nothing, and the others its flight.
        let calls = (0..200).map(|_| async {
            let handle = if each { Prefixed::new(kv.clone(), "acme:") } else { one.clone() };
            let work = || async {
                queries.fetch_add(1, Ordering::SeqCst);
                // Slower than the lock lasts.
                sleep(Duration::from_secs(3)).await;
                Ok::<_, Error>("value")
            };
            handle.guarded_get("k", &options, work).await
        });
        for value in join_all(calls).await {
            assert_eq!(value.unwrap(), "value");
        }
        costs.push((kv.counts().total(), queries.load(Ordering::SeqCst)));
    }
    assert_eq!(costs[0], costs[1], "(commands, computations)");
    assert_eq!(costs[0].1, 2, "one more for each `lock_ttl`");
}

/// One failed look of the waiter who has the watch is no reason to fail anybody who waits for a
/// computation in the same process.
#[tokio::test(start_paused = true)]
async fn a_look_that_fails_disturbs_no_computation() {
    for nth in 3..8 {
        let kv = FaultStore::nth(MemoryStore::new(), nth, Fault::FailBefore);
        let (options, queries) = (GuardedGet::new(TTL), AtomicU32::new(0));
        let calls = (0..10).map(|_| {
            kv.guarded_get("k", &options, || async {
                queries.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_secs(1)).await;
                Ok::<_, Error>("value")
            })
        });
        for value in join_all(calls).await {
            assert_eq!(value.unwrap(), "value", "at call {nth}");
        }
        assert_eq!((kv.injected(), queries.load(Ordering::SeqCst)), (1, 1), "at call {nth}");
    }
}
