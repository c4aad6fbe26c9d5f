//! Who computes after a holder, in virtual time.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::process;
use common::scripted::{Failure, scripted};
use derp_kv_core::{Error, GuardedGet, KvStore, KvStoreExt, Operation};
use derp_kv_memory::MemoryStore;
use futures_util::future::join_all;
use tokio::sync::mpsc;

const SLOW: Duration = Duration::from_millis(500);
const LOCK_TTL: Duration = Duration::from_secs(2);

fn options() -> GuardedGet {
    GuardedGet::new(Duration::from_secs(300)).lock_ttl(LOCK_TTL)
}

/// Computations under way, the most at once, and all.
#[derive(Debug, Default)]
struct Computed {
    now: AtomicU32,
    most: AtomicU32,
    all: AtomicU32,
}

impl Computed {
    async fn compute(&self) -> Result<&'static str, Error> {
        self.all.fetch_add(1, Ordering::SeqCst);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(SLOW).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok("value")
    }
}

/// The holder may die at any moment between two renewals. Who has waited for as long as a lock
/// lives cannot tell that from a holder that is alive, unless it looks at the lock's age.
#[tokio::test(start_paused = true)]
async fn a_holder_that_died_after_renewals_is_succeeded_by_exactly_one() {
    for renewals in 0..3 {
        let data = MemoryStore::new();
        data.set(b"k:lock", b"dead", Some(LOCK_TTL)).await.unwrap();
        let computed = Arc::new(Computed::default());
        let processes: Vec<_> = (0..3).map(|_| process(&data)).collect();
        let calls: Vec<_> = (0..30)
            .map(|caller| {
                let (kv, computed) = (processes[caller % 3].clone(), computed.clone());
                tokio::spawn(async move {
                    kv.guarded_get("k", &options(), || async move { computed.compute().await })
                        .await
                })
            })
            .collect();
        for _ in 0..renewals {
            tokio::time::sleep(LOCK_TTL / 3).await;
            assert!(data.expire(b"k:lock", LOCK_TTL).await.unwrap());
        }
        let died = tokio::time::Instant::now();
        for value in join_all(calls).await {
            assert_eq!(value.unwrap().unwrap(), "value");
        }
        let waited = died.elapsed();
        assert_eq!(computed.all.load(Ordering::SeqCst), 1, "after {renewals} renewals");
        assert!(waited <= LOCK_TTL + 2 * SLOW, "{waited:?} after {renewals} renewals");
        assert_eq!(data.get(b"k").await.unwrap().unwrap(), "value");
    }
}

/// Each store call of a process that waits for another one's holder fails once, in turn.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_a_waiter_lets_no_herd_compute() {
    for failing in [LOCK_TTL / 2, LOCK_TTL - Duration::from_millis(1)] {
        let data = MemoryStore::new();
        let holder = data.clone();
        let holding = tokio::spawn(async move {
            let lease = holder.try_lock("k", LOCK_TTL).await.unwrap().unwrap();
            tokio::time::sleep(20 * LOCK_TTL).await;
            lease.release().await.unwrap()
        });
        tokio::task::yield_now().await;
        let kv = scripted(&data);
        let computed = Arc::new(Computed::default());
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let (kv, computed) = (kv.clone(), computed.clone());
                tokio::spawn(async move {
                    kv.guarded_get("k", &options(), || async move { computed.compute().await })
                        .await
                })
            })
            .collect();
        tokio::time::sleep(failing).await;
        kv.layer().fail_next(Failure::Before);
        let mut failures = 0;
        for value in join_all(calls).await {
            match value.unwrap() {
                Ok(value) => assert_eq!(value, "value"),
                Err(_) => failures += 1,
            }
        }
        let most = computed.most.load(Ordering::SeqCst);
        assert_eq!(most, 1, "at once, after a failure at {failing:?}");
        assert!(failures <= 1, "{failures} callers failed");
        assert!(kv.flights().unwrap().is_empty());
        holding.abort();
    }
}

/// Leaders are dropped one after the other. Each waits once, however long, and keeps its place: the
/// lease goes from the newest to the oldest, and nobody asks the store for another.
#[tokio::test(start_paused = true)]
async fn the_newest_waiter_inherits_the_lease_of_each_dropped_leader() {
    const CALLERS: usize = 12;
    let data = MemoryStore::new();
    let kv = scripted(&data);
    let (began, mut begun) = mpsc::unbounded_channel();
    let call = |caller: usize| {
        let (kv, began) = (kv.clone(), began.clone());
        tokio::spawn(async move {
            kv.guarded_get("k", &options(), || async {
                began.send(caller).unwrap();
                // Only the oldest waiter, which comes last, gets as far as a value.
                if caller != 1 {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Error>(caller.to_string())
            })
            .await
        })
    };
    let mut calls = vec![call(0)];
    assert_eq!(begun.recv().await, Some(0));
    let mut waiting = Vec::new();
    let mut leader = 0;
    for caller in 1..CALLERS {
        calls.push(call(caller));
        waiting.push(caller);
        // Each third arrival meets a drop: whoever came last is next, among those of any age.
        if caller % 3 == 0 {
            tokio::time::sleep(LOCK_TTL / 2).await;
            calls[leader].abort();
            leader = waiting.pop().unwrap();
            assert_eq!(begun.recv().await, Some(leader));
        }
    }
    while let Some(next) = waiting.pop() {
        tokio::time::sleep(LOCK_TTL / 2).await;
        calls[leader].abort();
        assert_eq!(begun.recv().await, Some(next), "after {leader}");
        leader = next;
    }
    assert_eq!(calls.swap_remove(1).await.unwrap().unwrap(), "1");
    assert_eq!(data.get(b"k").await.unwrap().unwrap(), "1");
    let leases = kv.layer().calls().iter().filter(|call| **call == Operation::SetNx).count();
    assert_eq!(leases, 1, "the lease is passed on");
    assert!(kv.flights().unwrap().is_empty());
    assert_eq!(data.get(b"k:lock").await.unwrap(), None);
}
