//! The lead that goes from one caller to the next, where those callers behave badly.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use derp_kv_conformance::{Fault, FaultStore, Operation};
use derp_kv_core::{Error, ErrorKind, GuardedGet, Idempotency, KvStore, KvStoreExt};
use derp_kv_memory::MemoryStore;
use tokio::runtime::Builder;
use tokio::time::timeout;

const OPTIONS: GuardedGet = GuardedGet::new(Duration::from_secs(300));
const LOCK_TTL: Duration = Duration::from_secs(2);

/// A lead that falls to a caller which is not polled must not stay with it.
#[tokio::test(start_paused = true)]
async fn work_that_falls_to_an_unpolled_caller_goes_to_one_that_is_polled() {
    let kv = MemoryStore::new();
    let options = Idempotency::default().lock_ttl(LOCK_TTL * 5);
    let hung = std::future::pending::<Result<u32, Error>>;
    let leader = tokio::spawn({
        let (kv, options) = (kv.clone(), options.clone());
        async move { kv.idempotent_execute("k", &options, hung).await }
    });
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    let waiter = tokio::spawn({
        let (kv, options) = (kv.clone(), options.clone());
        async move { kv.idempotent_execute("k", &options, || async { Ok::<_, Error>(1) }).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut newest = pin!(kv.idempotent_execute("k", &options, hung));
    assert!(newest.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    leader.abort();
    let outcome = timeout(LOCK_TTL * 4, waiter).await.expect("the lead stays with one that sleeps");
    assert_eq!(outcome.unwrap().unwrap().body, 1);
}

/// A lease is renewed on the runtime of the caller that took it, which may stop being driven when it
/// hands its lead over.
#[test]
fn a_lease_of_another_runtime_is_not_taken_over() {
    let lock_ttl = Duration::from_millis(400);
    let kv = MemoryStore::new();
    let runs = Arc::new(AtomicU32::new(0));
    let options = Idempotency::default().lock_ttl(lock_ttl);
    let idle = Builder::new_current_thread().enable_time().build().unwrap();
    let driven = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let mut leader = Box::pin({
        let (kv, options) = (kv.clone(), options.clone());
        async move {
            let hung = std::future::pending::<Result<u32, Error>>;
            kv.idempotent_execute("k", &options, hung).await
        }
    });
    idle.block_on(async {
        let led = timeout(Duration::from_millis(50), &mut leader).await;
        assert!(led.is_err(), "it hangs");
    });
    let work = {
        let (kv, options, runs) = (kv.clone(), options.clone(), runs.clone());
        move || {
            let (kv, options, runs) = (kv.clone(), options.clone(), runs.clone());
            async move {
                let work = || async {
                    runs.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(lock_ttl * 3).await;
                    Ok::<_, Error>(1)
                };
                kv.idempotent_execute("k", &options, work).await
            }
        }
    };
    let waiter = driven.spawn(work());
    std::thread::sleep(Duration::from_millis(50));
    drop(leader);
    std::thread::sleep(lock_ttl * 2);
    // As another process would: with flights of its own it knows the lock alone.
    let other = derp_kv_core::Layered::new(kv, OwnFlights(derp_kv_core::Flights::new()));
    let again = driven.block_on(async {
        let work = || async {
            runs.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Error>(2)
        };
        other.idempotent_execute("k", &options, work).await
    });
    assert!(
        again.is_ok_and(|again| again.body == 1) || runs.load(Ordering::SeqCst) == 1,
        "the work runs twice at once"
    );
    assert_eq!(driven.block_on(waiter).unwrap().unwrap().body, 1);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[derive(Clone, Debug)]
struct OwnFlights(derp_kv_core::Flights);

impl derp_kv_core::Layer for OwnFlights {
    fn flights<'a>(
        &'a self,
        _: Option<&'a derp_kv_core::Flights>,
    ) -> Option<&'a derp_kv_core::Flights> {
        Some(&self.0)
    }
}

/// A try for a lock that is dropped just before it ends must not leave a task that renews it.
#[tokio::test(start_paused = true)]
async fn a_try_that_is_dropped_at_any_point_leaves_no_renewal() {
    for polls in 1..6 {
        let kv = FaultStore::nth_of(
            MemoryStore::new(),
            Operation::CompareAndDelete,
            0,
            Fault::FailBefore,
        );
        {
            let mut call = pin!(kv.try_lock("k", LOCK_TTL));
            for _ in 0..polls {
                let poll = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                if poll.is_ready() {
                    break;
                }
            }
        }
        tokio::time::sleep(LOCK_TTL * 2).await;
        assert!(!kv.exists(b"k:lock").await.unwrap(), "it is renewed, after {polls} polls");
    }
}

/// One failing holder after the other, each in another process, must not keep a caller for ever.
#[tokio::test(start_paused = true)]
async fn holders_that_change_keep_nobody_for_ever() {
    let data = MemoryStore::new();
    let other = data.clone();
    let busy = tokio::spawn(async move {
        loop {
            // A lock that is taken anew before anybody sees that it was free.
            let lease = other.try_lock("k", LOCK_TTL).await.unwrap().expect("nobody else has it");
            tokio::time::sleep(Duration::from_secs(1)).await;
            lease.release().await.unwrap();
        }
    });
    tokio::task::yield_now().await;
    let call = data.guarded_get("k", &OPTIONS, || async { Ok::<_, Error>("own") });
    let value = timeout(LOCK_TTL * 5, call).await.expect("it waits for one after the other");
    assert_eq!(value.unwrap(), "own");
    busy.abort();
}

/// Nothing that is left to do once the value is there keeps those who wait for it.
#[tokio::test(start_paused = true)]
async fn a_store_that_loses_the_answers_of_releases_lets_one_computation_serve_all() {
    for (operation, fault) in [
        (Operation::CompareAndDelete, Fault::FailAfter),
        (Operation::CompareAndDelete, Fault::Lose),
        (Operation::Set, Fault::Lose),
    ] {
        let kv = FaultStore::each(MemoryStore::new(), operation, fault);
        let runs = AtomicU32::new(0);
        let calls = (0..20).map(|_| {
            kv.guarded_get("k", &OPTIONS, || async {
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok::<_, Error>("value")
            })
        });
        for value in futures_util::future::join_all(calls).await {
            assert_eq!(value.unwrap(), "value");
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1, "{operation} {fault:?}");
    }
}

#[test]
fn a_caller_outside_of_a_runtime_is_refused_though_a_flight_is_under_way() {
    use futures_util::FutureExt as _;
    let kv = MemoryStore::new();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let mut leader =
        Box::pin(kv.guarded_get("k", &OPTIONS, std::future::pending::<Result<&str, Error>>));
    runtime.block_on(async {
        assert!(timeout(Duration::from_millis(20), &mut leader).await.is_err());
    });
    let work = || async { Ok::<_, Error>("value") };
    let refused = kv.guarded_get("k", &OPTIONS, work).now_or_never().expect("nothing to wait for");
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    let _context = runtime.enter();
    drop(leader);
}
