//! `idempotent_execute` on the in-memory store, in virtual time.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{forms_of, process};
use derp_kv_core::{Error, ErrorKind, Idempotency, KvStore, KvStoreExt, Outcome, Result};
use derp_kv_memory::MemoryStore;
use futures_util::future::join_all;

const RECORD: &[u8] = b"derp:idempotency:k";
const LOCK: &[u8] = b"derp:idempotency:k:lock";
const SLOW: Duration = Duration::from_secs(3);

fn options() -> Idempotency {
    Idempotency::default()
}

/// Runs the call and counts how often the work ran.
async fn order<S: KvStore + Clone>(
    kv: S,
    options: Idempotency,
    runs: &AtomicU32,
    takes: Duration,
) -> Result<Outcome<u32>> {
    kv.idempotent_execute("k", &options, || async {
        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(takes).await;
        Ok(run)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn every_form_of_a_store_replays() {
    for kv in forms_of(MemoryStore::new()) {
        let runs = AtomicU32::new(0);
        let first = order(kv.clone(), options().status_code(201), &runs, SLOW).await.unwrap();
        let again = order(kv.clone(), options(), &runs, SLOW).await.unwrap();
        assert_eq!((first.body, first.status_code, first.is_replay), (1, 201, false));
        assert_eq!((again.body, again.status_code, again.is_replay), (1, 201, true));
    }
}

#[tokio::test(start_paused = true)]
async fn slow_work_runs_once_for_callers_of_several_processes() {
    let data = MemoryStore::new();
    let runs = Arc::new(AtomicU32::new(0));
    let calls = (0..4).flat_map(|_| vec![process(&data); 5]).map(|kv| {
        let runs = runs.clone();
        tokio::spawn(async move { order(kv, options(), &runs, SLOW).await })
    });
    let mut ran = 0;
    for outcome in join_all(calls.collect::<Vec<_>>()).await {
        match outcome.unwrap() {
            Ok(outcome) => ran += u32::from(!outcome.is_replay),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InProgress);
                assert!(error.retry_after().is_some());
            }
        }
    }
    assert_eq!((ran, runs.load(Ordering::SeqCst)), (1, 1));
    assert!(!data.exists(LOCK).await.unwrap());
    assert!(order(data.clone(), options(), &runs, SLOW).await.unwrap().is_replay);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_not_reused_for_another_request() {
    let data = MemoryStore::new();
    let runs = Arc::new(AtomicU32::new(0));
    let first = tokio::spawn({
        let (kv, runs) = (process(&data), runs.clone());
        async move { order(kv, options().fingerprint("a"), &runs, SLOW).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // While it is under way, in the same process and in another, and afterwards.
    let began = tokio::time::Instant::now();
    for kv in [process(&data), process(&data)] {
        let reused = order(kv, options().fingerprint("b"), &runs, SLOW).await.unwrap_err();
        assert_eq!(reused.kind(), ErrorKind::KeyReused);
    }
    assert!(began.elapsed() < Duration::from_secs(1));
    first.await.unwrap().unwrap();
    let reused = order(data.clone(), options().fingerprint("b"), &runs, SLOW).await.unwrap_err();
    assert_eq!(reused.kind(), ErrorKind::KeyReused);
    assert!(order(data.clone(), options().fingerprint("a"), &runs, SLOW).await.unwrap().is_replay);
    // Without a fingerprint nothing is compared.
    assert!(order(data.clone(), options(), &runs, SLOW).await.unwrap().is_replay);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_in_the_same_process_is_compared_while_the_first_is_under_way() {
    let kv = MemoryStore::new();
    let runs = Arc::new(AtomicU32::new(0));
    let first = tokio::spawn({
        let (kv, runs) = (kv.clone(), runs.clone());
        async move { order(kv, options().fingerprint("a"), &runs, SLOW).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = tokio::time::Instant::now();
    let reused = order(kv.clone(), options().fingerprint("b"), &runs, SLOW).await.unwrap_err();
    assert_eq!((reused.kind(), began.elapsed()), (ErrorKind::KeyReused, Duration::ZERO));
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_while_the_first_takes_its_lock_is_compared_too() {
    let kv = process(&MemoryStore::new());
    let runs = AtomicU32::new(0);
    let (first, second) = tokio::join!(
        order(kv.clone(), options().fingerprint("a"), &runs, SLOW),
        order(kv.clone(), options().fingerprint("b"), &runs, SLOW),
    );
    assert!(!first.unwrap().is_replay);
    assert_eq!(second.unwrap_err().kind(), ErrorKind::KeyReused);
}

#[tokio::test(start_paused = true)]
async fn another_request_is_told_from_a_body_of_another_type() {
    let kv = MemoryStore::new();
    let runs = AtomicU32::new(0);
    order(kv.clone(), options().fingerprint("a"), &runs, SLOW).await.unwrap();
    for (request, kind) in [("b", ErrorKind::KeyReused), ("a", ErrorKind::Corrupt)] {
        let text = || async { Ok::<_, Error>("text".to_owned()) };
        let options = options().fingerprint(request);
        let call = kv.idempotent_execute("k", &options, text);
        assert_eq!(call.await.unwrap_err().kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_frees_the_key() {
    let kv = MemoryStore::new();
    let options = options();
    let failed = kv
        .idempotent_execute("k", &options, || async { Err::<u32, _>(anyhow::anyhow!("no stock")) });
    assert_eq!(failed.await.unwrap_err().to_string(), "no stock");
    assert!(!kv.exists(LOCK).await.unwrap() && !kv.exists(RECORD).await.unwrap());
    let runs = AtomicU32::new(0);
    assert!(!order(kv, options, &runs, SLOW).await.unwrap().is_replay);
}

#[tokio::test(start_paused = true)]
async fn a_caller_dropped_at_any_point_frees_the_key_or_leaves_a_record() {
    for polls in 0.. {
        let data = MemoryStore::new();
        let runs = AtomicU32::new(0);
        let began = tokio::time::Instant::now();
        let call = order(process(&data), options(), &runs, Duration::ZERO);
        let finished = common::drop_after(polls, call).await;
        let next = order(process(&data), options(), &runs, Duration::ZERO).await.unwrap();
        assert_eq!(next.body, runs.load(Ordering::SeqCst), "the last run is the one on record");
        assert!(began.elapsed() < Duration::from_millis(200), "after {polls} polls");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!data.exists(LOCK).await.unwrap(), "after {polls} polls");
        if finished {
            assert!(polls > 5 && next.is_replay);
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_lost_its_lease_returns_the_record_of_its_successor() {
    let data = MemoryStore::new();
    let runs = Arc::new(AtomicU32::new(0));
    let late = tokio::spawn({
        let (kv, runs) = (process(&data), runs.clone());
        async move { order(kv, options(), &runs, SLOW).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // As if the holder had been stopped for longer than its lease.
    data.delete(LOCK).await.unwrap();
    let successor = order(process(&data), options(), &runs, Duration::ZERO).await.unwrap();
    let late = late.await.unwrap().unwrap();
    assert_eq!((successor.body, successor.is_replay), (2, false));
    assert_eq!((late.body, late.is_replay), (2, true));
}

#[tokio::test(start_paused = true)]
async fn records_of_the_python_services_are_replayed_and_corrupt_ones_stay() {
    let kv = MemoryStore::new();
    let runs = AtomicU32::new(0);
    let python = br#"{"body": 7, "status_code": 201, "created_at": "2026-01-01", "headers": {}}"#;
    kv.set(RECORD, python, None).await.unwrap();
    let replay = order(kv.clone(), options().fingerprint("x"), &runs, SLOW).await.unwrap();
    assert_eq!((replay.body, replay.status_code, replay.is_replay), (7, 201, true));

    for corrupt in [
        &b""[..],
        b"{",
        b"null",
        b"{\"status_code\":201}",
        b"\xff",
        b"{\"status_code\":-1,\"body\":1}",
        b"{\"status_code\":200,\"body\":\"secret\"}",
    ] {
        kv.set(RECORD, corrupt, None).await.unwrap();
        let error = order(kv.clone(), options(), &runs, SLOW).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        assert_eq!(kv.get(RECORD).await.unwrap().as_deref(), Some(corrupt));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);

    kv.delete(RECORD).await.unwrap();
    order(kv.clone(), options().status_code(201), &runs, SLOW).await.unwrap();
    assert_eq!(kv.get(RECORD).await.unwrap().unwrap(), r#"{"status_code":201,"body":1}"#);
}

#[tokio::test(start_paused = true)]
async fn keys_and_options_are_checked_before_any_work() {
    let kv = MemoryStore::new();
    let long = vec![b'x'; 1025];
    for (key, options) in [
        (&b"k:lock"[..], options()),
        (&long[..], options()),
        (b"k", options().ttl(Duration::ZERO)),
        (b"k", options().lock_ttl(Duration::ZERO)),
        (b"k", options().retry_delay(Duration::MAX)),
        (b"k", options().status_code(99)),
    ] {
        let refused = kv.idempotent_execute(key, &options, || async { Ok::<u32, Error>(1) }).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(kv.pinned_bytes(), 0);
    let exact = vec![b'x'; 1024];
    kv.idempotent_execute(exact, &options(), || async { Ok::<u32, Error>(1) }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_frees_the_key() {
    let kv = MemoryStore::new();
    let panicked = tokio::spawn({
        let kv = kv.clone();
        async move {
            let work = || async { panic!("on purpose") };
            kv.idempotent_execute::<_, u32, _, _, Error>("k", &options(), work).await
        }
    });
    assert!(panicked.await.unwrap_err().is_panic());
    tokio::task::yield_now().await;
    assert!(!kv.exists(LOCK).await.unwrap() && kv.flights().unwrap().is_empty());
    let runs = AtomicU32::new(0);
    assert!(!order(kv, options(), &runs, SLOW).await.unwrap().is_replay);
}
