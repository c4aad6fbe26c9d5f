//! What the helpers send, counted exactly: a script of a server counts as the one call that it is.

use std::time::Duration;

use derp_kv_conformance::{CountingStore, Counts, Operation};
use derp_kv_core::{
    Dedup, Error, ErrorKind, GuardedGet, Idempotency, KvStore, KvStoreExt, Lock, OnAbandoned,
    Processed, RateLimit, Reply, Result,
};
use derp_kv_memory::MemoryStore;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_miss_is_five_calls_and_a_hit_one() {
    let kv = CountingStore::new(MemoryStore::new());
    let options = GuardedGet::new(MINUTE);
    let work = || async {
        // A lone caller looks at nothing while it computes, however long that takes.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok::<_, Error>("value")
    };
    kv.guarded_get("k", &options, work).await.unwrap();
    let miss = Counts::from([
        (Operation::Get, 2),
        (Operation::SetNx, 1),
        (Operation::Set, 1),
        (Operation::CompareAndDelete, 1),
    ]);
    assert_eq!(kv.take(), miss);
    kv.guarded_get("k", &options, work).await.unwrap();
    assert_eq!(kv.take(), Counts::from([(Operation::Get, 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_failed_computation_is_four_calls_whoever_waits() {
    let kv = CountingStore::new(MemoryStore::new());
    let options = GuardedGet::new(MINUTE);
    let work = || async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Err::<&str, _>(anyhow::anyhow!("no stock"))
    };
    let calls = (0..100).map(|_| kv.guarded_get("k", &options, work));
    let results = futures_util::future::join_all(calls).await;
    assert!(results.iter().all(Result::is_err));
    let failed = Counts::from([
        (Operation::Get, 2),
        (Operation::SetNx, 1),
        (Operation::CompareAndDelete, 1),
    ]);
    assert_eq!(kv.take(), failed);
}

#[tokio::test(start_paused = true)]
async fn a_first_execution_is_five_calls_and_a_replay_one() {
    let kv = CountingStore::new(MemoryStore::new());
    let options = Idempotency::default();
    let work = || async { Ok::<_, Error>(1) };
    assert!(!kv.idempotent_execute("k", &options, work).await.unwrap().is_replay);
    assert_eq!(kv.take().total(), 5);
    assert!(kv.idempotent_execute("k", &options, work).await.unwrap().is_replay);
    assert_eq!(kv.take(), Counts::from([(Operation::Get, 1)]));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_counted_is_two_calls_more() {
    let counted = Counts::from([
        (Operation::Get, 2),
        // The lock, the marker of the attempt and the record.
        (Operation::SetNx, 3),
        // The marker goes, and the lock.
        (Operation::CompareAndDelete, 2),
    ]);
    let work = || async { Ok::<_, Error>(1) };
    let kv = CountingStore::new(MemoryStore::new());
    kv.idempotent_execute("rejects", &rejecting(), work).await.unwrap();
    assert_eq!((kv.counts().total(), kv.take()), (7, counted));
    let options = Idempotency::default();
    kv.idempotent_execute_with("with", &options, |_| work()).await.unwrap();
    assert_eq!(kv.take(), counted);
    // Replays ask for no attempts.
    for _ in 0..2 {
        kv.idempotent_execute("rejects", &rejecting(), work).await.unwrap();
        kv.idempotent_execute_with("with", &options, |_| work()).await.unwrap();
        assert_eq!(kv.take(), Counts::from([(Operation::Get, 2)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_costs_what_any_other_answer_does() {
    let kv = CountingStore::new(MemoryStore::new());
    let options = Idempotency::default();
    let binary = || async { Ok::<_, Error>(Reply::new(201, &b"\xff"[..]).header("etag", "1")) };
    kv.idempotent_execute("k", &options, binary).await.unwrap();
    assert_eq!(kv.take().total(), 5);
    assert!(kv.idempotent_execute("k", &options, binary).await.unwrap().is_replay);
    assert_eq!(kv.take(), Counts::from([(Operation::Get, 1)]));
    // One that is not kept leaves no record: the key is free again.
    let transient = || async { Ok::<_, Error>(Reply::new(503, "")) };
    kv.idempotent_execute("transient", &options, transient).await.unwrap();
    assert_eq!(kv.take(), one_call_without_record());
    // One that is not to be kept leaves a small record in its place.
    let omitted = || async { Ok::<_, Error>(Reply::omitted(201)) };
    kv.idempotent_execute("omitted", &options, omitted).await.unwrap_err();
    assert_eq!(kv.take().total(), 5);
    kv.idempotent_execute("omitted", &options, omitted).await.unwrap_err();
    assert_eq!(kv.take(), Counts::from([(Operation::Get, 1)]));
}

fn rejecting() -> Idempotency {
    Idempotency::default().on_abandoned(OnAbandoned::Reject)
}

/// What a call of `idempotent_execute` makes that does its work, and keeps nothing of it.
fn one_call_without_record() -> Counts {
    Counts::from([(Operation::Get, 2), (Operation::SetNx, 1), (Operation::CompareAndDelete, 1)])
}

#[tokio::test(start_paused = true)]
async fn what_failed_and_what_was_abandoned_is_counted() {
    let kv = CountingStore::new(MemoryStore::new());
    let failing = || async { Err::<u32, _>(Error::new(ErrorKind::Backend, "no stock")) };
    kv.idempotent_execute("k", &Idempotency::default(), failing).await.unwrap_err();
    assert_eq!(kv.take(), one_call_without_record());
    // With its attempts counted, the marker stays, and says that this one has failed.
    kv.idempotent_execute("k", &rejecting(), failing).await.unwrap_err();
    let failed = Counts::from([
        (Operation::Get, 2),
        (Operation::SetNx, 2),
        (Operation::CompareAndSet, 1),
        (Operation::CompareAndDelete, 1),
    ]);
    assert_eq!(kv.take(), failed);
    // The next one finds that marker, and takes its place.
    kv.idempotent_execute("k", &rejecting(), failing).await.unwrap_err();
    let failed_again = Counts::from([
        (Operation::Get, 3),
        (Operation::SetNx, 2),
        (Operation::CompareAndSet, 2),
        (Operation::CompareAndDelete, 1),
    ]);
    assert_eq!(kv.take(), failed_again);

    abandon(&kv, "abandoned").await;
    let work = || async { Ok::<_, Error>(1) };
    let error = kv.idempotent_execute("abandoned", &rejecting(), work).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Abandoned);
    let rejected = Counts::from([
        // The record, the marker, and the record again: its attempt may have ended meanwhile.
        (Operation::Get, 3),
        (Operation::SetNx, 2),
        (Operation::CompareAndDelete, 1),
    ]);
    assert_eq!(kv.take(), rejected);
    for (forgotten, deletes) in [(true, 2), (false, 1)] {
        let forget = kv.idempotent_forget("abandoned", &rejecting()).await.unwrap();
        assert_eq!(forget, forgotten);
        let forgets = Counts::from([
            (Operation::SetNx, 1),
            (Operation::Get, 1),
            // The marker, where there is one, and the lock.
            (Operation::CompareAndDelete, deletes),
        ]);
        assert_eq!(kv.take(), forgets);
    }
}

/// Leaves an attempt whose caller has gone away while it worked.
async fn abandon(kv: &CountingStore<MemoryStore>, key: &str) {
    let (options, begun) = (rejecting(), tokio::sync::Notify::new());
    let work = || async {
        begun.notify_one();
        std::future::pending::<Result<u32>>().await
    };
    tokio::select! {
        _ = kv.idempotent_execute(key, &options, work) => unreachable!("the work never ends"),
        () = begun.notified() => {}
    }
    // The lock is freed in the background.
    let lock = format!("derp:idempotency:{key}:lock");
    while kv.inner().exists(lock.as_bytes()).await.unwrap() {
        tokio::task::yield_now().await;
    }
    let _ = kv.take();
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_counted_where_they_are_given_up() {
    let kv = CountingStore::new(MemoryStore::new());
    let plain = Dedup::default();
    let options = plain.clone().give_up_after(2);
    let handler = || async { Ok::<_, Error>(()) };
    let failing = || async { Err::<(), _>(Error::new(ErrorKind::Backend, "a poison event")) };
    kv.process_once("plain", &plain, handler).await.unwrap();
    assert_eq!(kv.take().total(), 5);
    kv.process_once("counted", &options, handler).await.unwrap();
    assert_eq!(kv.take().total(), 7);
    kv.process_once_with("with", &plain, |_| handler()).await.unwrap();
    assert_eq!(kv.take().total(), 7);
    // The first delivery fails, the second finds its marker, fails and is the last.
    kv.process_once("poison", &options, failing).await.unwrap_err();
    assert_eq!(kv.take().total(), 6);
    kv.process_once("poison", &options, failing).await.unwrap_err();
    let last = Counts::from([
        (Operation::Get, 3),
        (Operation::SetNx, 3),
        (Operation::CompareAndSet, 1),
        (Operation::CompareAndDelete, 2),
    ]);
    assert_eq!(kv.take(), last);
    for id in ["plain", "counted", "with", "poison"] {
        let again = kv.process_once(id, &options, handler).await.unwrap();
        let given_up = Processed::GivenUp { attempts: 2 };
        assert_eq!(again, if id == "poison" { given_up } else { Processed::Before });
        assert_eq!(kv.take(), Counts::from([(Operation::Get, 1)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_and_a_webhook_are_one_call_and_a_lock_is_two() {
    let kv = CountingStore::new(MemoryStore::new());
    let limit = RateLimit::new(1, MINUTE);
    for allowed in [true, false] {
        assert_eq!(kv.rate_limit("ada", &limit).await.unwrap().allowed, allowed);
        assert_eq!(kv.take(), Counts::from([(Operation::Incr, 1)]));
    }
    for before in [false, true] {
        assert_eq!(kv.already_processed("evt", &Dedup::default()).await.unwrap(), before);
        assert_eq!(kv.take(), Counts::from([(Operation::SetNx, 1)]));
    }
    let handler = || async { Ok::<_, Error>(()) };
    let again = kv.process_once("evt", &Dedup::default(), handler).await.unwrap();
    assert_eq!((again, kv.take().total()), (Processed::Before, 1));
    kv.lock("job", &Lock::new(MINUTE)).await.unwrap().release().await.unwrap();
    assert_eq!(kv.take().total(), 2);
    kv.refresh("k", b"v", None).await.unwrap();
    kv.invalidate("k").await.unwrap();
    assert_eq!(kv.take().total(), 4);
}
