//! The store fails at any call, before or after applying it: no work runs twice, no lock or
//! counter stays for good, and the errors are of the right kind.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use derp_kv_conformance::{Fault, FaultStore};
use derp_kv_core::{
    Dedup, Error, ErrorKind, Expiry, GuardedGet, Idempotency, KvStore, KvStoreExt, OnStoreError,
    RateLimit,
};
use derp_kv_memory::MemoryStore;
use futures_util::TryStreamExt;

const FAULTS: [Fault; 2] = [Fault::FailBefore, Fault::FailAfter];
const PATIENCE: Duration = Duration::from_secs(10);

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
async fn idempotent_work_runs_once() {
    let (mut failed, mut succeeded) = (0, 0);
    for fault in FAULTS {
        for nth in 0.. {
            let data = MemoryStore::new();
            let kv = FaultStore::nth(data.clone(), nth, fault);
            let runs = AtomicU32::new(0);
            let call = |kv: FaultStore<MemoryStore>| {
                let runs = &runs;
                async move {
                    kv.idempotent_execute("k", Idempotency::default(), || async {
                        Ok::<_, Error>(runs.fetch_add(1, Ordering::SeqCst))
                    })
                    .await
                }
            };
            match call(kv.clone()).await {
                Ok(_) => succeeded += 1,
                Err(error) => {
                    assert_injected(&error);
                    failed += 1;
                }
            }
            let hit = kv.injected() > 0;
            call(FaultStore::none(data.clone())).await.unwrap();
            assert_eq!(runs.load(Ordering::SeqCst), 1, "{fault:?} at call {nth}");
            assert_nothing_immortal(&data).await;
            if !hit {
                break;
            }
        }
    }
    println!("idempotent_execute: {succeeded} succeeded, {failed} failed, none ran twice");
    assert!(succeeded > 2 && failed > 2);
}

#[tokio::test(start_paused = true)]
async fn events_are_handled_once() {
    for fault in FAULTS {
        for nth in 0.. {
            let data = MemoryStore::new();
            let kv = FaultStore::nth(data.clone(), nth, fault);
            let runs = AtomicU32::new(0);
            let call = |kv: FaultStore<MemoryStore>| {
                let runs = &runs;
                async move {
                    kv.process_once("k", Dedup::default(), || async {
                        runs.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, Error>(())
                    })
                    .await
                }
            };
            if let Err(error) = call(kv.clone()).await {
                assert_injected(&error);
            }
            let hit = kv.injected() > 0;
            // A claim whose owner failed is freed in the background.
            tokio::time::sleep(Duration::from_millis(1)).await;
            call(FaultStore::none(data.clone())).await.unwrap();
            assert_eq!(runs.load(Ordering::SeqCst), 1, "{fault:?} at call {nth}");
            assert_nothing_immortal(&data).await;
            if !hit {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cached_values_are_computed_and_nothing_is_left_locked() {
    for on_error in [OnStoreError::Fail, OnStoreError::Compute] {
        for fault in FAULTS {
            for nth in 0.. {
                let data = MemoryStore::new();
                let kv = FaultStore::nth(data.clone(), nth, fault);
                let options = GuardedGet::ttl(Duration::from_secs(60)).on_store_error(on_error);
                let call = |kv: FaultStore<MemoryStore>| {
                    let options = options.clone();
                    async move { kv.guarded_get("k", options, || async { Ok::<_, Error>("v") }).await }
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

#[tokio::test(start_paused = true)]
async fn counters_never_stay_for_good() {
    for seed in 0..50 {
        for fault in FAULTS {
            let data = MemoryStore::new();
            data.set(b"derp:ratelimit:k", b"1", None).await.unwrap();
            let kv = FaultStore::randomly(data.clone(), seed, 3, fault);
            let mut counted = 0;
            for _ in 0..20 {
                match kv.rate_limit("k", RateLimit::new(5, PATIENCE)).await {
                    Ok(_) => counted += 1,
                    Err(error) => assert_injected(&error),
                }
            }
            assert!(kv.injected() > 0 && counted > 0);
            assert!(matches!(data.ttl(b"derp:ratelimit:k").await.unwrap(), Some(Expiry::In(_))));
        }
    }
}
