//! The lease on the in-memory store, in virtual time.

mod common;

use std::time::Duration;

use common::scripted::{Failure, gated, scripted};
use common::{Owns, drop_after, process};
use derp_kv_core::{
    Error, ErrorKind, Expiry, GuardedGet, KvStore, KvStoreExt, Layered, Lease, Lock, Operation,
};
use derp_kv_memory::{ManualClock, MemoryStore};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

const TTL: Duration = Duration::from_secs(3);
const LOCK: &[u8] = b"k:lock";

/// Lets background tasks that need no time run.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn take<S: KvStore + Clone>(kv: &S) -> Lease {
    kv.try_lock("k", TTL).await.unwrap().expect("the key is free")
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_for_as_long_as_it_is_held() {
    let kv = MemoryStore::new();
    let lease = take(&kv).await;
    for _ in 0..20 {
        sleep(TTL / 2).await;
        assert!(!lease.is_lost());
        assert!(kv.try_lock("k", TTL).await.unwrap().is_none());
        let Some(Expiry::In(left)) = kv.ttl(LOCK).await.unwrap() else { panic!("it expires") };
        assert!(left >= TTL * 2 / 3 && left <= TTL, "{left:?}");
    }
    assert!(lease.release().await.unwrap());
    assert_eq!(kv.get(LOCK).await.unwrap(), None);
    // Nothing renews it any more.
    let next = take(&kv).await;
    assert_eq!(next.token().len(), 32);
    assert!(next.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn renewal_ends_with_the_lease() {
    let kv = scripted(&MemoryStore::new());
    let lease = take(&kv).await;
    // Between two renewals: one that is under way would end by itself.
    sleep(TTL + TTL / 6).await;
    assert!(
        kv.layer().calls().iter().filter(|name| **name == Operation::CompareAndSet).count() >= 2
    );
    assert!(lease.release().await.unwrap());
    let calls = kv.layer().calls().len();
    sleep(TTL * 10).await;
    assert_eq!(kv.layer().calls().len(), calls, "something still talks to the store");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_is_free_at_once() {
    let kv = MemoryStore::new();
    drop(take(&kv).await);
    let began = Instant::now();
    let next = kv.lock("k", &Lock::new(TTL).at_most(TTL * 2)).await.unwrap();
    assert!(began.elapsed() < TTL / 3, "{:?}", began.elapsed());
    assert!(next.release().await.unwrap());
}

fn runtimes() -> [Runtime; 2] {
    use tokio::runtime::Builder;
    [Builder::new_current_thread(), Builder::new_multi_thread()]
        .map(|mut builder| builder.enable_time().build().unwrap())
}

#[test]
fn a_lease_that_is_dropped_outside_of_its_runtime_is_free_at_once() {
    for runtime in runtimes() {
        let kv = process(&MemoryStore::new());
        let lease = runtime.block_on(take(&kv));
        // By a thread that has no runtime; that of the lease lives on.
        std::thread::spawn(move || drop(lease)).join().unwrap();
        let waits = Lock::new(TTL).at_most(TTL / 2);
        let next = runtime.block_on(async { kv.lock("k", &waits).await });
        assert!(runtime.block_on(next.unwrap().release()).unwrap());
    }
}

#[test]
fn a_lease_whose_runtime_has_ended_is_lost_to_its_holder_and_expires() {
    for runtime in runtimes() {
        let kv = process(&MemoryStore::new());
        let lease = runtime.block_on(take(&kv));
        drop(runtime);
        let [runtime, _] = runtimes();
        runtime.block_on(lease.lost());
        assert!(lease.is_lost());
        drop(lease);
        let left = runtime.block_on(kv.ttl(LOCK)).unwrap();
        assert!(!matches!(left, Some(Expiry::Never)), "{left:?}");
    }
}

/// tokio's timers stand still with the worker that registered them, so the renewal must not be on
/// the runtime of the work.
#[test]
fn a_store_with_a_runtime_of_its_own_keeps_the_lease_of_work_that_blocks_after_an_await() {
    let ttl = Duration::from_millis(300);
    let [_, own] = runtimes();
    for runtime in runtimes() {
        let kv = Layered::new(MemoryStore::new(), Owns(own.handle().clone()));
        let work = async move {
            let lease = kv.try_lock("k", ttl).await.unwrap().expect("it is free");
            for _ in 0..3 {
                sleep(Duration::from_millis(5)).await;
                std::thread::sleep(ttl * 2);
                assert!(!lease.is_lost(), "the lease is lost to work that blocks");
            }
            lease.release().await.unwrap()
        };
        assert!(runtime.block_on(runtime.spawn(work)).unwrap(), "the lease was lost");
    }
}

/// A lease is measured by the clock of the runtime that renews it.
#[test]
fn a_paused_clock_does_not_end_a_lease_that_is_renewed_in_real_time() {
    let [_, own] = runtimes();
    let mut paused = tokio::runtime::Builder::new_current_thread();
    let paused = paused.enable_time().start_paused(true).build().unwrap();
    // Its clock stands still, so that the lock stays.
    let data = MemoryStore::builder().clock(ManualClock::new()).build().unwrap();
    let kv = Layered::new(data, Owns(own.handle().clone()));
    let lease = paused.block_on(kv.try_lock("k", Duration::from_secs(60))).unwrap().unwrap();
    for _ in 0..2 {
        paused.block_on(tokio::time::advance(Duration::from_secs(50)));
        assert!(!paused.block_on(async { lease.is_lost() }), "the caller's clock ended it");
    }
    own.shutdown_background();
    paused.block_on(lease.lost());
}

#[test]
fn helpers_that_take_a_lease_say_that_they_need_a_runtime() {
    use futures_util::FutureExt as _;
    let kv = MemoryStore::new();
    let refused = kv.try_lock("k", TTL).now_or_never().expect("nothing to wait for").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let (options, work) = (GuardedGet::new(TTL), || async { Ok::<_, Error>("v") });
    let missed = kv.guarded_get("k", &options, work).now_or_never().expect("nothing to wait for");
    assert_eq!(missed.unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(kv.set(b"k", b"v", None).now_or_never().expect("nothing to wait for").is_ok());
    let hit = kv.guarded_get("k", &options, work).now_or_never().expect("nothing to wait for");
    assert_eq!(hit.unwrap(), "v");
}

#[tokio::test(start_paused = true)]
async fn a_caller_dropped_while_taking_leaves_no_lock() {
    for polls in 0.. {
        let kv = process(&MemoryStore::new());
        let done = drop_after(polls, async {
            take(&kv).await.release().await.unwrap();
        })
        .await;
        settle().await;
        assert_eq!(kv.get(LOCK).await.unwrap(), None, "dropped after {polls} polls");
        if done {
            assert!(polls > 3);
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_taken_over_is_not_touched_by_its_old_holder() {
    let kv = MemoryStore::new();
    let old = take(&kv).await;
    kv.delete(LOCK).await.unwrap();
    let new = take(&kv).await;
    let began = Instant::now();
    old.lost().await;
    assert!(began.elapsed() <= TTL / 3, "a refused renewal tells at once");
    assert!(old.is_lost() && !new.is_lost());
    assert!(!old.release().await.unwrap());
    sleep(TTL * 3).await;
    assert!(!new.is_lost());
    assert_eq!(kv.get(LOCK).await.unwrap().as_deref(), Some(new.token().as_bytes()));
    assert!(new.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_holder_of_a_hung_store_learns_in_time() {
    let data = MemoryStore::new();
    let kv = gated(&data);
    kv.layer().step();
    let before = Instant::now();
    let lease = take(&kv).await;
    // No further call is let through.
    lease.lost().await;
    assert!(before.elapsed() <= TTL, "{:?}", before.elapsed());
    assert!(lease.is_lost());
}

#[tokio::test(start_paused = true)]
async fn one_failed_renewal_is_made_up_for() {
    for fault in [Failure::Before, Failure::After] {
        let kv = scripted(&MemoryStore::new());
        let lease = take(&kv).await;
        kv.layer().fail_next(fault);
        sleep(TTL * 3).await;
        assert_eq!(kv.layer().failed(), Some(Operation::CompareAndSet));
        assert!(!lease.is_lost());
        assert!(lease.release().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_answer_to_the_first_request_is_resolved() {
    let data = MemoryStore::new();
    let kv = scripted(&data);
    kv.layer().fail_next(Failure::After);
    let lease = take(&kv).await;
    assert_eq!(data.get(LOCK).await.unwrap().as_deref(), Some(lease.token().as_bytes()));
    assert!(lease.release().await.unwrap());

    kv.layer().fail_next(Failure::Before);
    let error = kv.try_lock("k", TTL).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Unavailable, false));
    settle().await;
    assert_eq!(data.get(LOCK).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_caller_gets_the_lock_or_an_error_in_time() {
    let kv = MemoryStore::new();
    let lease = take(&kv).await;
    let began = Instant::now();
    let error = kv.lock("k", &Lock::new(TTL).at_most(TTL * 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Held, Some(Operation::Lock)));
    assert!(error.retry_after().is_some_and(|after| after > TTL / 2 && after <= TTL), "{error:?}");
    assert_eq!(began.elapsed(), TTL * 2);

    let waiting = tokio::spawn({
        let kv = kv.clone();
        async move { kv.lock("k", &Lock::new(TTL).at_most(TTL * 2)).await }
    });
    sleep(TTL).await;
    lease.release().await.unwrap();
    assert!(waiting.await.unwrap().unwrap().release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn of_many_contenders_one_at_a_time_holds_the_lock() {
    let data = MemoryStore::new();
    let inside = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let contenders: Vec<_> = (0..16)
        .map(|_| {
            let (kv, inside) = (process(&data), inside.clone());
            tokio::spawn(async move {
                for _ in 0..20 {
                    let lease = kv
                        .lock("k", &Lock::new(TTL).at_most(Duration::from_secs(3600)))
                        .await
                        .unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    sleep(Duration::from_millis(7)).await;
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    assert!(lease.release().await.unwrap());
                }
            })
        })
        .collect();
    for contender in contenders {
        contender.await.unwrap();
    }
    assert_eq!(data.get(LOCK).await.unwrap(), None);
}

/// The work blocks its thread; only another one can renew. A worker that a timer or a socket has
/// woken was the one that watched them, and the other may not have taken over.
#[test]
fn renewal_goes_on_while_the_work_blocks_its_thread() {
    let ttl = Duration::from_secs(2);
    let works = (0..32).map(|nth| {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_time()
                .build()
                .unwrap();
            let work = runtime.spawn(async move {
                if nth % 2 == 0 {
                    sleep(Duration::from_millis(nth % 8)).await;
                }
                let kv = MemoryStore::new();
                let lease = kv.try_lock("k", ttl).await.unwrap().expect("the key is free");
                std::thread::sleep(ttl * 2);
                lease.release().await.unwrap()
            });
            runtime.block_on(work).unwrap()
        })
    });
    let renewed: Vec<_> =
        works.collect::<Vec<_>>().into_iter().map(|w| w.join().unwrap()).collect();
    assert!(renewed.iter().all(|renewed| *renewed), "{renewed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_two_callers_hold_one_lease() {
    let kv = MemoryStore::new();
    let inside = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (kv, inside) = (kv.clone(), inside.clone());
            tokio::spawn(async move {
                for _ in 0..200 {
                    let lease = kv
                        .lock("job", &Lock::new(TTL).at_most(Duration::from_secs(60)))
                        .await
                        .unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    assert!(lease.release().await.unwrap());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(!kv.exists(b"job:lock").await.unwrap());
}

#[tokio::test]
async fn reserved_keys_and_ttls_out_of_range_are_refused() {
    let kv = MemoryStore::new();
    for refused in [kv.try_lock("x:lock", TTL).await, kv.try_lock("x", Duration::ZERO).await] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
