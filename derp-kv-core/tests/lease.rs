//! Leases: taken, renewed, lost, released, dropped.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::Process;
use derp_kv_conformance::{CountingStore, Fault, FaultStore, Operation};
use derp_kv_core::{ErrorKind, Expiry, KvStore, KvStoreExt};
use derp_kv_memory::MemoryStore;

const TTL: Duration = Duration::from_secs(3);
const LOCK: &[u8] = b"job:lock";

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
async fn a_lease_that_was_taken_over_is_lost_and_its_successor_is_left_alone() {
    let kv = MemoryStore::new();
    let lease = kv.try_lock("job", TTL).await.unwrap().unwrap();
    kv.delete(LOCK).await.unwrap();
    let successor = kv.try_lock("job", TTL).await.unwrap().unwrap();
    assert_ne!(lease.token(), successor.token());
    lease.lost().await;
    assert!(lease.is_lost() && !successor.is_lost());
    tokio::time::sleep(5 * TTL).await;
    assert!(!lease.release().await.unwrap());
    assert_eq!(kv.get(LOCK).await.unwrap().unwrap(), successor.token());
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

#[tokio::test(start_paused = true)]
async fn an_ambiguous_acquisition_is_resolved_by_reading_back() {
    let kv = FaultStore::nth(MemoryStore::new(), 0, Fault::FailAfter);
    let lease = kv.try_lock("job", TTL).await.unwrap().expect("it was applied");
    assert!(lease.release().await.unwrap());

    let kv = FaultStore::nth(MemoryStore::new(), 0, Fault::FailBefore);
    let error = kv.try_lock("job", TTL).await.unwrap_err();
    assert!(!error.may_have_applied());
    assert!(kv.try_lock("job", TTL).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_or_acquisition_frees_the_key_at_once() {
    let kv = MemoryStore::new();
    drop(kv.try_lock("job", TTL).await.unwrap().unwrap());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!kv.exists(LOCK).await.unwrap());
    for polls in 0.. {
        let data = MemoryStore::new();
        let finished = common::drop_after(polls, Process::of(&data).try_lock("job", TTL)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!data.exists(LOCK).await.unwrap(), "after {polls} polls");
        if finished {
            break;
        }
    }
}

#[test]
fn a_lease_dropped_outside_a_runtime_panics_not_and_expires() {
    let kv = MemoryStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let lease = runtime.block_on(kv.try_lock("job", TTL)).unwrap().unwrap();
    drop(runtime);
    drop(lease);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let Some(Expiry::In(left)) = runtime.block_on(kv.ttl(LOCK)).unwrap() else {
        panic!("the record has no expiry")
    };
    assert!(left <= TTL);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_lock_ends_with_it_or_with_patience() {
    let kv = MemoryStore::new();
    let lease = kv.try_lock("job", TTL).await.unwrap().unwrap();
    let began = tokio::time::Instant::now();
    let error = kv.lock("job", TTL, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Timeout, Duration::from_secs(1)));
    let waiter = tokio::spawn({
        let kv = kv.clone();
        async move { kv.lock("job", TTL, Duration::from_secs(60)).await }
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    lease.release().await.unwrap();
    assert!(waiter.await.unwrap().is_ok());
    for refused in [kv.try_lock("x:lock", TTL).await, kv.try_lock("x", Duration::ZERO).await] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewal_goes_on_while_the_work_blocks_its_thread() {
    let kv = MemoryStore::new();
    let ttl = Duration::from_millis(600);
    let lease = tokio::spawn({
        let kv = kv.clone();
        async move {
            let lease = kv.try_lock("job", ttl).await.unwrap().unwrap();
            std::thread::sleep(3 * ttl);
            lease
        }
    });
    let lease = lease.await.unwrap();
    assert!(!lease.is_lost());
    assert!(lease.release().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_two_callers_hold_one_lease() {
    let kv = MemoryStore::new();
    let inside = Arc::new(AtomicU32::new(0));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (kv, inside) = (kv.clone(), inside.clone());
            tokio::spawn(async move {
                for _ in 0..200 {
                    let lease = kv.lock("job", TTL, Duration::from_secs(60)).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    assert!(lease.release().await.unwrap());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(!kv.exists(LOCK).await.unwrap());
}
