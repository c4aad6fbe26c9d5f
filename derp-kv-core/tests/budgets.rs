//! What the helpers send, counted exactly: a script of a server counts as the one call that it is.

use std::time::Duration;

use derp_kv_conformance::{CountingStore, Counts, Operation};
use derp_kv_core::{Dedup, Error, GuardedGet, Idempotency, KvStoreExt, Lock, Processed, RateLimit};
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
