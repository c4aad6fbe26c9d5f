//! A store that answers late: what it granted may have run out by then. In virtual time.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::process;
use derp_kv_conformance::{Fault, FaultStore, Operation};
use derp_kv_core::{Dedup, Error, ErrorKind, GuardedGet, Idempotency, KvStore, KvStoreExt};
use derp_kv_memory::MemoryStore;
use tokio::time::sleep;

const TTL: Duration = Duration::from_secs(3);
/// Past the time of the first renewal, and before the lease has run out.
const LATE: Duration = Duration::from_millis(2500);
/// Past the lease.
const TOO_LATE: Duration = Duration::from_secs(5);

/// The first call of `operation` is held up, as by a server that stands still for a while.
fn held_up<S: KvStore>(inner: S, operation: Operation, delay: Duration) -> FaultStore<S> {
    FaultStore::nth_of(inner, operation, 0, Fault::Delay(delay))
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_came_late_is_renewed() {
    for delay in [Duration::ZERO, TTL / 3, LATE, TOO_LATE] {
        let data = MemoryStore::new();
        let kv = held_up(data.clone(), Operation::SetNx, delay);
        let lease = kv.try_lock("k", TTL).await.unwrap().expect("the key is free");
        for _ in 0..10 {
            assert!(!lease.is_lost(), "{delay:?}");
            assert!(data.try_lock("k", TTL).await.unwrap().is_none(), "{delay:?}");
            sleep(TTL / 2).await;
        }
        assert!(lease.release().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ran_out_before_it_came_is_not_taken_for_held() {
    let data = MemoryStore::new();
    let kv = held_up(data.clone(), Operation::CompareAndSet, TOO_LATE);
    let kv = held_up(kv, Operation::SetNx, LATE);
    let (late, other) = tokio::join!(kv.try_lock("k", TTL), async {
        sleep(LATE + TTL + Duration::from_millis(1)).await;
        data.try_lock("k", TTL).await.unwrap().expect("the first has run out")
    });
    let late = late.unwrap_err();
    assert_eq!((late.kind(), late.may_have_applied()), (ErrorKind::Timeout, true));
    assert!(!other.is_lost() && other.release().await.unwrap());
}

/// Runs `call` in two processes, one of which takes its lock late, and counts how often the work
/// ran.
async fn runs_of<Fut: Future<Output = Result<(), Error>> + Send + 'static>(
    slow: Operation,
    delay: Duration,
    call: impl Fn(Arc<dyn KvStore>, Arc<AtomicU32>) -> Fut + Send + Sync,
) -> u32 {
    let (data, runs) = (MemoryStore::new(), Arc::new(AtomicU32::new(0)));
    let late: Arc<dyn KvStore> = Arc::new(held_up(process(&data), slow, delay));
    let first = tokio::spawn(call(late, runs.clone()));
    sleep(delay).await;
    // The other is delivered again and again, until one of the two has done the work.
    let other: Arc<dyn KvStore> = Arc::new(process(&data));
    let deliveries = async {
        loop {
            match call(other.clone(), runs.clone()).await {
                Err(error) if error.kind() == ErrorKind::InProgress => sleep(TTL / 10).await,
                result => break result.unwrap(),
            }
        }
    };
    let (first, ()) = tokio::join!(first, deliveries);
    if let Err(error) = first.unwrap() {
        // Where the store is too slow to tell, nobody is said to be at work.
        let kinds = [ErrorKind::InProgress, ErrorKind::Timeout];
        assert!(kinds.contains(&error.kind()) && !error.may_have_applied(), "{error}");
    }
    runs.load(Ordering::SeqCst)
}

async fn work(runs: Arc<AtomicU32>) -> Result<u32, Error> {
    let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
    sleep(TTL * 4).await;
    Ok(run)
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_call_runs_once_though_its_lock_came_late() {
    for (slow, delay) in
        [(Operation::SetNx, LATE), (Operation::SetNx, TOO_LATE), (Operation::Get, TOO_LATE)]
    {
        let call = |kv: Arc<dyn KvStore>, runs| async move {
            let options = Idempotency::default().lock_ttl(TTL);
            kv.idempotent_execute("k", &options, || work(runs)).await.map(drop)
        };
        assert_eq!(runs_of(slow, delay, call).await, 1, "{slow:?} {delay:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_handled_once_though_its_claim_came_late() {
    for delay in [LATE, TOO_LATE] {
        let call = |kv: Arc<dyn KvStore>, runs| async move {
            let options = Dedup::default().lock_ttl(TTL);
            kv.process_once("evt", &options, || work(runs)).await.map(drop)
        };
        assert_eq!(runs_of(Operation::SetNx, delay, call).await, 1, "{delay:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn work_does_not_begin_under_a_lease_that_has_run_out() {
    // The look after the lock is what takes too long, and nothing can renew meanwhile.
    let data = MemoryStore::new();
    let kv = FaultStore::each(process(&data), Operation::CompareAndSet, Fault::FailBefore);
    let kv = FaultStore::nth_of(kv, Operation::Get, 1, Fault::Delay(TOO_LATE));
    let runs = Arc::new(AtomicU32::new(0));
    let options = Idempotency::default().lock_ttl(TTL);
    let result = kv.idempotent_execute("k", &options, || work(runs.clone())).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_value_is_kept_though_its_lock_came_late() {
    let data = MemoryStore::new();
    let kv = held_up(process(&data), Operation::SetNx, LATE);
    let options = GuardedGet::new(Duration::from_secs(600)).lock_ttl(TTL);
    let value = kv
        .guarded_get("k", &options, || async {
            sleep(TTL * 4).await;
            Ok::<_, Error>("v")
        })
        .await;
    assert_eq!(value.unwrap(), "v");
    assert_eq!(data.get(b"k").await.unwrap().as_deref(), Some(&b"v"[..]));
}
