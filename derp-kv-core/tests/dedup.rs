//! `already_processed` and `process_once`.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::process;
use derp_kv_conformance::{CountingStore, Operation};
use derp_kv_core::{
    Dedup, Error, ErrorKind, Idempotency, KvStore, KvStoreExt, Processed, RateLimit, Result,
};
use derp_kv_memory::MemoryStore;

const RECORD: &[u8] = b"derp:webhook:evt";
const LOCK: &[u8] = b"derp:webhook:evt:lock";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn handle<S: KvStore + Clone>(kv: S, runs: &AtomicU32) -> Result<Processed<u32>> {
    kv.process_once("evt", &Dedup::default(), || async {
        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_secs(10)).await;
        Ok(run)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_event_is_new_once_in_its_window() {
    let kv = CountingStore::new(MemoryStore::new());
    assert!(!kv.already_processed("evt", &Dedup::default()).await.unwrap());
    assert!(kv.already_processed("evt", &Dedup::default()).await.unwrap());
    let counts = kv.take();
    assert_eq!((counts.total(), counts.of(Operation::SetNx)), (2, 2));
    tokio::time::advance(DAY).await;
    assert!(!kv.already_processed("evt", &Dedup::default()).await.unwrap());
    for (id, options) in [
        (&b"evt:lock"[..], Dedup::default()),
        (&[b'x'; 1025][..], Dedup::default()),
        (b"new", Dedup::default().ttl(Duration::ZERO)),
    ] {
        let error = kv.already_processed(id, &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_runs_once_and_duplicates_are_told() {
    let data = MemoryStore::new();
    let runs = Arc::new(AtomicU32::new(0));
    let first = tokio::spawn({
        let (kv, runs) = (process(&data), runs.clone());
        async move { handle(kv, &runs).await }
    });
    // The handler is slower than its claim lives unrenewed.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let error = handle(process(&data), &runs).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InProgress);
        assert!(error.retry_after().is_some());
    }
    assert_eq!(first.await.unwrap().unwrap(), Processed::Now(1));
    assert_eq!(handle(data.clone(), &runs).await.unwrap(), Processed::Before);
    assert!(data.already_processed("evt", &Dedup::default()).await.unwrap());
    assert!(!data.exists(LOCK).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_or_is_dropped_leaves_the_event() {
    let kv = MemoryStore::new();
    let options = Dedup::default();
    let failed = kv.process_once("evt", &options, || async {
        Err::<(), _>(anyhow::anyhow!("the warehouse is closed"))
    });
    assert_eq!(failed.await.unwrap_err().to_string(), "the warehouse is closed");
    assert!(!kv.exists(LOCK).await.unwrap() && !kv.exists(RECORD).await.unwrap());

    for polls in 0.. {
        let data = MemoryStore::new();
        let (call, options) = (process(&data), Dedup::default());
        let call = call.process_once("evt", &options, || async { Ok::<_, Error>(()) });
        let finished = common::drop_after(polls, call).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!data.exists(LOCK).await.unwrap(), "after {polls} polls");
        let again = data.process_once("evt", &options, || async { Ok::<_, Error>(()) });
        again.await.unwrap();
        if finished {
            assert!(polls > 5);
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_or_dies_leaves_its_event() {
    let kv = MemoryStore::new();
    let panicked = tokio::spawn({
        let kv = kv.clone();
        async move {
            let handler = || async { panic!("on purpose") };
            kv.process_once::<_, (), _, _, Error>("evt", &Dedup::default(), handler).await
        }
    });
    assert!(panicked.await.unwrap_err().is_panic());
    tokio::task::yield_now().await;
    let ship = || async { Ok::<_, Error>(1) };
    let again = kv.process_once("evt", &Dedup::default(), ship).await.unwrap();
    assert_eq!(again, Processed::Now(1));

    // Who dies releases nothing: the claim lives as long as it was taken for.
    let claim = b"derp:webhook:other:lock";
    assert!(kv.set_nx(claim, b"the dead one's", Some(Duration::from_secs(2))).await.unwrap());
    let early = kv.process_once("other", &Dedup::default(), ship).await.unwrap_err();
    assert_eq!(early.kind(), ErrorKind::InProgress);
    tokio::time::sleep(early.retry_after().unwrap()).await;
    let late = kv.process_once("other", &Dedup::default(), ship).await.unwrap();
    assert_eq!(late, Processed::Now(1));
}

/// The event would be lost if another helper's record passed for its mark.
#[tokio::test(start_paused = true)]
async fn a_record_of_another_helper_is_not_taken_for_a_processed_event() {
    let kv = MemoryStore::new();
    let (idempotency, dedup) =
        (Idempotency::default().key_prefix("shared"), Dedup::default().key_prefix("shared"));
    let work = || async { Ok::<_, Error>(1) };
    kv.idempotent_execute("order", &idempotency, work).await.unwrap();
    let limit = RateLimit::new(5, Duration::from_secs(60)).key_prefix("shared").cost(2);
    kv.rate_limit("counter", &limit).await.unwrap();
    for id in ["order", "counter"] {
        let error = kv.process_once(id, &dedup, work).await.unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Corrupt, false), "{id}");
    }
    kv.set(b"shared:event", b"processed", None).await.unwrap();
    assert_eq!(kv.process_once("event", &dedup, work).await.unwrap(), Processed::Before);
}
