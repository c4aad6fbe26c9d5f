//! The store fails at each call of each helper in turn, before or after doing it.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::scripted::{Failure, Scripted, scripted};
use derp_kv_core::{
    Dedup, Error, ErrorKind, Expiry, GuardedGet, Idempotency, KvStore, KvStoreExt, Processed,
    RateLimit,
};
use derp_kv_memory::MemoryStore;
use futures_util::TryStreamExt;

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const SLOW: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Tally {
    faults: u32,
    errors: u32,
}

/// Every key that is left must expire, and no lock may outlive its TTL.
async fn nothing_immortal(data: &MemoryStore, what: &str) {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let keys: Vec<_> = data.scan(b"").try_collect().await.unwrap();
    for key in keys {
        assert!(!key.ends_with(b":lock"), "{what}: a lock is left");
        assert_ne!(data.ttl(&key).await.unwrap(), Some(Expiry::Never), "{what}: {key:?} stays");
    }
}

fn is_the_stores(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}

/// Runs `scenario` with each call failed in turn, until it makes no more calls.
async fn each_call_fails(what: &str, scenario: impl AsyncFn(&Scripted, &mut Tally, &str)) -> Tally {
    let mut tally = Tally::default();
    for fault in [Failure::Before, Failure::After] {
        for number in 0.. {
            let data = MemoryStore::new();
            let kv = scripted(&data);
            kv.layer().fail(number, fault);
            let name = format!("{what}, call {number} fails {fault:?}");
            scenario(&kv, &mut tally, &name).await;
            nothing_immortal(&data, &name).await;
            assert!(kv.flights().unwrap().is_empty(), "{name}: a flight is left");
            if kv.layer().failed().is_none() {
                break;
            }
            tally.faults += 1;
        }
    }
    println!("\n{what}: {} faults, {} errors", tally.faults, tally.errors);
    tally
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_request_is_executed_once() {
    let tally = each_call_fails("idempotent_execute", async |kv, tally, name| {
        let runs = AtomicU32::new(0);
        let options = Idempotency::default();
        let call = || {
            kv.idempotent_execute("k", &options, || async {
                tokio::time::sleep(SLOW).await;
                Ok::<_, Error>(runs.fetch_add(1, Ordering::SeqCst))
            })
        };
        // As a client does that tries again.
        for attempt in 0.. {
            match call().await {
                Ok(outcome) => {
                    assert_eq!(outcome.body, 0, "{name}");
                    break;
                }
                Err(error) => {
                    tally.errors += 1;
                    let busy = error.kind() == ErrorKind::InProgress;
                    assert!(attempt < 3 && (busy || is_the_stores(&error)), "{name}: {error:?}");
                }
            }
        }
        let again = call().await;
        assert!(
            again.is_ok_and(|again| again.is_replay) || kv.layer().failed().is_some(),
            "{name}"
        );
        assert_eq!(runs.load(Ordering::SeqCst), 1, "{name}");
    })
    .await;
    assert!(tally.faults >= 10, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn an_event_is_handled_once() {
    let tally = each_call_fails("process_once", async |kv, tally, name| {
        let runs = AtomicU32::new(0);
        for attempt in 0.. {
            let handled = kv
                .process_once("e", &Dedup::default().ttl(WEEK), || async {
                    tokio::time::sleep(SLOW).await;
                    runs.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, Error>(())
                })
                .await;
            match handled {
                Ok(Processed::Before) => break,
                Ok(_) => {}
                Err(error) => {
                    tally.errors += 1;
                    let busy = error.kind() == ErrorKind::InProgress;
                    assert!(attempt < 4 && (busy || is_the_stores(&error)), "{name}: {error:?}");
                    // As a sender that delivers again later.
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
            }
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1, "{name}");
    })
    .await;
    assert!(tally.faults >= 10, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cached_value_is_computed_and_kept() {
    let tally = each_call_fails("guarded_get", async |kv, tally, name| {
        let runs = AtomicU32::new(0);
        let mut values = 0;
        while values < 2 {
            let value = kv
                .guarded_get("k", &GuardedGet::new(WEEK), || async {
                    tokio::time::sleep(SLOW).await;
                    runs.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, Error>("value")
                })
                .await;
            match value {
                Ok(value) => {
                    assert_eq!(value, "value");
                    values += 1;
                }
                Err(error) => {
                    tally.errors += 1;
                    assert!(is_the_stores(&error), "{name}: {error:?}");
                }
            }
        }
        // One more only where the value could not be kept.
        assert!(runs.load(Ordering::SeqCst) <= 2, "{name}");
    })
    .await;
    assert!(tally.faults >= 10, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_lets_no_more_through() {
    let tally = each_call_fails("rate_limit", async |kv, tally, name| {
        // A counter that something else left without an expiry is repaired on the way.
        if name.contains("Before") {
            let _ = kv.incr(b"derp:ratelimit:u", 1, None).await;
        }
        let mut allowed = 0;
        for _ in 0..8 {
            match kv.rate_limit("u", &RateLimit::new(3, WEEK)).await {
                Ok(status) => allowed += u32::from(status.allowed),
                Err(error) => {
                    tally.errors += 1;
                    assert!(is_the_stores(&error), "{name}: {error:?}");
                }
            }
        }
        assert!(allowed <= 3, "{name}: {allowed} allowed");
    })
    .await;
    assert!(tally.faults >= 10, "{tally:?}");
}
