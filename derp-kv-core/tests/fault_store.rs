//! Helpers and leases over the suite's fault and counting stores: what they do where the store
//! fails or hangs, at random or at each renewal, and exactly what they send.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use derp_kv_conformance::{CountingStore, Fault, FaultStore, Operation};
use derp_kv_core::{
    Error, ErrorKind, Expiry, GuardedGet, Idempotency, KvStore, KvStoreExt, Layer, Layered,
    OnStoreError, RateLimit, Result,
};
use derp_kv_memory::MemoryStore;
use futures_util::TryStreamExt;
use tokio::time::Instant;

const FAULTS: [Fault; 2] = [Fault::FailBefore, Fault::FailAfter];
const PATIENCE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(3);
const LOCK: &[u8] = b"job:lock";

/// Nothing that was left has no expiry, and no lock outlives its TTL.
async fn assert_nothing_immortal(data: &MemoryStore) {
    let keys: Vec<_> = data.scan(b"").try_collect().await.unwrap();
    for key in keys {
        assert!(matches!(data.ttl(&key).await.unwrap(), None | Some(Expiry::In(_))), "{key:?}");
    }
    tokio::time::sleep(PATIENCE).await;
    let keys: Vec<_> = data.scan(b"").try_collect().await.unwrap();
    assert!(!keys.iter().any(|key| key.ends_with(b":lock")), "{keys:?}");
}

fn assert_injected(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error}");
}

#[tokio::test(start_paused = true)]
async fn cached_values_are_computed_and_nothing_is_left_locked() {
    for on_error in [OnStoreError::Fail, OnStoreError::Compute] {
        for fault in FAULTS {
            for nth in 0.. {
                let data = MemoryStore::new();
                let kv = FaultStore::nth(data.clone(), nth, fault);
                let options = GuardedGet::new(Duration::from_secs(60)).on_store_error(on_error);
                let call = |kv: FaultStore<MemoryStore>| async move {
                    kv.guarded_get("k", &options, || async { Ok::<_, Error>("v") }).await
                };
                match call(kv.clone()).await {
                    Ok(value) => assert_eq!(value, "v"),
                    Err(error) => {
                        assert_injected(&error);
                        assert_eq!(on_error, OnStoreError::Fail);
                    }
                }
                let hit = kv.injected() > 0;
                assert_eq!(call(FaultStore::none(data.clone())).await.unwrap(), "v");
                assert!(kv.flights().unwrap().is_empty());
                assert_nothing_immortal(&data).await;
                if !hit {
                    break;
                }
            }
        }
    }
}

/// The most computations of 20 callers at once, while the store refuses every call.
async fn most_at_once(computation: Duration) -> u32 {
    let kv = FaultStore::randomly(MemoryStore::new(), 0, 1, Fault::FailBefore);
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let calls = (0..20).map(|caller| {
        let (kv, running, most) = (kv.clone(), running.clone(), most.clone());
        let strict = caller % 4 == 0;
        let on_error = if strict { OnStoreError::Fail } else { OnStoreError::Compute };
        tokio::spawn(async move {
            let options = GuardedGet::new(TTL).lock_ttl(TTL).on_store_error(on_error);
            let value = kv.guarded_get("k", &options, || async {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(computation).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Error>("v")
            });
            (strict, value.await)
        })
    });
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            (_, Ok(value)) => assert_eq!(value, "v"),
            (strict, Err(error)) => assert!(strict, "{error}"),
        }
    }
    assert!(kv.flights().unwrap().is_empty());
    most.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_down_a_process_computes_once_at_a_time() {
    assert_eq!(most_at_once(TTL - Duration::from_millis(1)).await, 1);
    // Nobody waits for one that hangs, beyond a lock's life.
    assert_eq!(most_at_once(TTL * 5 / 2).await, 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_before_a_failure_is_told() {
    for nth in [0, 1] {
        let data = MemoryStore::new();
        data.mset(&[(b"k", b"v"), (b"k:lock", b"token")], None).await.unwrap();
        let kv = FaultStore::nth_of(data, Operation::Delete, nth, Fault::FailBefore);
        let error = kv.invalidate("k").await.unwrap_err();
        assert!(error.may_have_applied(), "one of the two is gone");
    }
    let kv = FaultStore::nth_of(MemoryStore::new(), Operation::Delete, 0, Fault::FailBefore);
    let error = kv.invalidate("k").await.unwrap_err();
    assert!(!error.may_have_applied(), "there was nothing");

    let data = MemoryStore::new();
    data.set(b"derp:ratelimit:ada", b"1", None).await.unwrap();
    let kv = FaultStore::each(data.clone(), Operation::Expire, Fault::FailBefore);
    let error = kv.rate_limit("ada", &RateLimit::new(5, TTL)).await.unwrap_err();
    assert!(error.may_have_applied(), "it was counted");
    assert_eq!(data.get(b"derp:ratelimit:ada").await.unwrap().unwrap(), "2");
}

#[tokio::test(start_paused = true)]
async fn a_record_is_tried_again_before_patience_ends() {
    // The first `set_nx` takes the lock, the second writes the record.
    let kv = FaultStore::nth_of(MemoryStore::new(), Operation::SetNx, 1, Fault::FailBefore);
    let options = Idempotency::default().lock_ttl(TTL).retry_delay(PATIENCE * 60);
    let began = Instant::now();
    let call = || kv.idempotent_execute("k", &options, || async { Ok::<_, Error>(1) });
    assert!(!call().await.unwrap().is_replay);
    assert!(began.elapsed() <= TTL, "{:?}", began.elapsed());
    assert!(call().await.unwrap().is_replay);
}

/// Has a record where it is to be written, and none where it is looked for.
#[derive(Debug)]
struct Flickers {
    data: MemoryStore,
    record: &'static [u8],
}

impl Layer for Flickers {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match operation {
            _ if key != Some(self.record) => {}
            Operation::SetNx => self.data.set(self.record, b"there", None).await?,
            _ => drop(self.data.delete(self.record).await?),
        }
        call.await
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_there_and_is_gone_ends_a_call_with_an_error() {
    let data = MemoryStore::new();
    let layer = Flickers { data: data.clone(), record: b"derp:idempotency:k" };
    let kv = Arc::new(Layered::new(data, layer));
    let options = Idempotency::default();
    let call = kv.idempotent_execute("k", &options, || async { Ok::<_, Error>(1) });
    let error = call.await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Backend, true));
}

#[tokio::test(start_paused = true)]
async fn counters_never_stay_for_good() {
    for seed in 0..50 {
        for fault in FAULTS {
            let data = MemoryStore::new();
            data.set(b"derp:ratelimit:k", b"1", None).await.unwrap();
            let kv = FaultStore::randomly(data.clone(), seed, 3, fault);
            let mut counted = 0;
            for _ in 0..20 {
                match kv.rate_limit("k", &RateLimit::new(5, PATIENCE)).await {
                    Ok(_) => counted += 1,
                    Err(error) => assert_injected(&error),
                }
            }
            assert!(kv.injected() > 0 && counted > 0);
            assert!(matches!(data.ttl(b"derp:ratelimit:k").await.unwrap(), Some(Expiry::In(_))));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_lease_is_renewed_every_third_of_its_ttl() {
    let kv = CountingStore::new(MemoryStore::new());
    let lease = kv.try_lock("job", TTL).await.unwrap().unwrap();
    assert_eq!(lease.key(), LOCK);
    assert_eq!(kv.inner().get(LOCK).await.unwrap().unwrap(), lease.token());
    assert!(lease.token().len() >= 32);
    let _ = kv.take();
    tokio::time::sleep(10 * TTL + Duration::from_millis(1)).await;
    assert_eq!(kv.take().of(Operation::CompareAndSet), 30);
    assert!(!lease.is_lost());
    assert!(kv.try_lock("job", TTL).await.unwrap().is_none());
    assert!(lease.release().await.unwrap());
    assert!(!kv.exists(LOCK).await.unwrap());
    let _ = kv.take();
    tokio::time::sleep(TTL).await;
    assert_eq!(kv.take().total(), 0, "renewed after its release");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_is_lost_when_its_own_clock_says_so() {
    for fault in [Fault::FailBefore, Fault::Hang] {
        let kv = FaultStore::each(MemoryStore::new(), Operation::CompareAndSet, fault);
        let began = tokio::time::Instant::now();
        let lease = kv.try_lock("job", TTL).await.unwrap().unwrap();
        lease.lost().await;
        assert_eq!(began.elapsed(), TTL, "{fault:?}");
        assert!(lease.is_lost());
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_without_an_answer_is_tried_again() {
    // Calls: set_nx is number 0, the first renewal number 1.
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Hang] {
        let kv = FaultStore::nth(MemoryStore::new(), 1, fault);
        let lease = kv.try_lock("job", TTL).await.unwrap().unwrap();
        tokio::time::sleep(5 * TTL).await;
        assert_eq!(kv.injected(), 1);
        assert!(!lease.is_lost(), "{fault:?}");
    }
}
