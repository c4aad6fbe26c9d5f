//! What the fault store and the counting store do to each operation.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_conformance::{CountingStore, Counts, Fault, FaultStore, Operation};
use derp_kv_core::{
    Ask, ErrorKind, GuardedGet, KvStore, KvStoreExt, Prefixed, RateLimit, Result, Step,
};
use derp_kv_memory::MemoryStore;
use futures_util::{FutureExt, TryStreamExt};
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(60);

/// One step, so that what it writes is the same each time.
static STEP: LazyLock<Step> = LazyLock::new(|| {
    RateLimit::strict(1_000, 1_440 * LONG).step(Ask::Admit).expect("a right limit")
});

/// A small call of the operation, on the key `k`.
async fn call(kv: &impl KvStore, operation: Operation) -> Result<()> {
    match operation {
        Operation::Get => kv.get(b"k").await.map(drop),
        Operation::GetWithTtl => kv.get_with_ttl(b"k").await.map(drop),
        Operation::Exists => kv.exists(b"k").await.map(drop),
        Operation::Ttl => kv.ttl(b"k").await.map(drop),
        Operation::Mget => kv.mget(&[b"a", b"k"]).await.map(drop),
        Operation::Scan => kv.scan(b"k").try_collect::<Vec<_>>().await.map(drop),
        Operation::Set => kv.set(b"k", b"7", None).await,
        Operation::Mset => kv.mset(&[(b"a", b"7"), (b"k", b"7")], None).await,
        Operation::Delete => kv.delete(b"k").await.map(drop),
        Operation::DeleteMany => kv.delete_many(&[b"a", b"k"]).await.map(drop),
        Operation::Expire => kv.expire(b"k", LONG).await.map(drop),
        Operation::SetNx => kv.set_nx(b"k", b"7", None).await.map(drop),
        Operation::Incr => kv.incr(b"k", 1, None).await.map(drop),
        Operation::CompareAndSet => kv.compare_and_set(b"k", b"1", b"7", None).await.map(drop),
        Operation::CompareAndDelete => kv.compare_and_delete(b"k", b"1").await.map(drop),
        Operation::WaitForChange => {
            kv.wait_for_change(b"k", Some(b"1"), LONG).await;
            Ok(())
        }
        Operation::Step => kv.step(b"k", &STEP).await.map(drop),
        other => panic!("{other} is not called"),
    }
}

fn all_that_may_fail() -> impl Iterator<Item = Operation> {
    Operation::PRIMITIVES.into_iter().filter(|operation| *operation != Operation::WaitForChange)
}

/// A store on which every write shows: `set_nx` and `step` need an absent key, the others a present
/// one.
async fn prepared(operation: Operation) -> Result<MemoryStore> {
    let kv = MemoryStore::new();
    if ![Operation::SetNx, Operation::Step].contains(&operation) {
        kv.set(b"k", b"1", None).await?;
    }
    Ok(kv)
}

async fn state(kv: &MemoryStore) -> Result<Option<(Bytes, bool)>> {
    let found = kv.get_with_ttl(b"k").await?;
    Ok(found.map(|(value, expiry)| (value, expiry.remaining().is_some())))
}

#[tokio::test(start_paused = true)]
async fn without_faults_every_operation_is_the_store_s_own() -> Result<()> {
    for operation in Operation::PRIMITIVES {
        let (kv, plain) = (prepared(operation).await?, prepared(operation).await?);
        let faulty = FaultStore::none(kv.clone());
        call(&faulty, operation).await?;
        call(&plain, operation).await?;
        assert_eq!(state(&kv).await?, state(&plain).await?, "{operation}");
        assert_eq!((faulty.injected(), faulty.last_injected()), (0, None));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_fails_before_is_not_applied_and_says_so() -> Result<()> {
    for operation in all_that_may_fail() {
        let kv = prepared(operation).await?;
        let before = state(&kv).await?;
        let faulty = FaultStore::each(kv.clone(), operation, Fault::FailBefore);
        let error = call(&faulty, operation).await.unwrap_err();
        let told = (error.kind(), error.operation());
        assert_eq!(told, (ErrorKind::Unavailable, Some(operation)));
        assert!(!error.may_have_applied(), "{operation}");
        assert_eq!(state(&kv).await?, before, "{operation}");
        assert_eq!(faulty.injected(), 1);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_and_a_lost_answer_look_the_same() -> Result<()> {
    for operation in all_that_may_fail() {
        let (unsent, unheard) = (prepared(operation).await?, prepared(operation).await?);
        let before = state(&unsent).await?;
        let request = FaultStore::nth(unsent.clone(), 0, Fault::Lose);
        let answer = FaultStore::nth(unheard.clone(), 0, Fault::FailAfter);
        let lost_request = call(&request, operation).await.unwrap_err();
        let lost_answer = call(&answer, operation).await.unwrap_err();
        assert_eq!(lost_request.to_string(), lost_answer.to_string());
        assert_eq!(lost_answer.kind(), ErrorKind::Timeout);
        assert_eq!(lost_answer.may_have_applied(), operation.writes(), "{operation}");
        assert_eq!(state(&unsent).await?, before, "{operation}");
        assert_eq!(state(&unheard).await? != before, operation.writes(), "{operation}");
        // The next call is none of its business.
        call(&answer, operation).await?;
        assert_eq!((answer.injected(), answer.calls()), (1, 2));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_delayed_call_is_made_after_its_delay() -> Result<()> {
    for operation in all_that_may_fail() {
        let kv = prepared(operation).await?;
        let (before, began) = (state(&kv).await?, Instant::now());
        let faulty = FaultStore::each(kv.clone(), operation, Fault::Delay(LONG));
        let slow = call(&faulty, operation);
        tokio::pin!(slow);
        assert!((&mut slow).now_or_never().is_none(), "{operation} is not delayed");
        assert_eq!(state(&kv).await?, before, "{operation} is applied before its delay");
        slow.await?;
        assert_eq!(began.elapsed(), LONG);
        assert_eq!(state(&kv).await? != before, operation.writes(), "{operation}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_hangs_is_applied_and_never_answers() -> Result<()> {
    for operation in all_that_may_fail() {
        let kv = prepared(operation).await?;
        let before = state(&kv).await?;
        let faulty = FaultStore::each(kv.clone(), operation, Fault::Hang);
        let caller = tokio::spawn({
            let faulty = faulty.clone();
            async move { call(&faulty, operation).await }
        });
        faulty.until_injected(1).await;
        tokio::time::sleep(10 * LONG).await;
        assert!(!caller.is_finished(), "{operation} answered");
        assert_eq!(state(&kv).await? != before, operation.writes(), "{operation}");
        caller.abort();
    }
    Ok(())
}

#[tokio::test]
async fn the_nth_call_of_one_operation_is_counted_among_its_own() -> Result<()> {
    let kv = FaultStore::nth_of(MemoryStore::new(), Operation::Get, 1, Fault::FailBefore);
    kv.set(b"k", b"v", None).await?;
    kv.get(b"k").await?;
    kv.set(b"k", b"w", None).await?;
    kv.clone().get(b"k").await.unwrap_err();
    kv.get(b"k").await?;
    assert_eq!((kv.injected(), kv.calls()), (1, 5));
    assert_eq!(kv.last_injected(), Some(Operation::Get));
    Ok(())
}

#[tokio::test]
async fn a_seed_picks_the_same_calls_and_about_as_many_as_asked_for() -> Result<()> {
    let picked = async |seed| {
        let kv = FaultStore::randomly(MemoryStore::new(), seed, 4, Fault::FailBefore);
        let mut picked = Vec::new();
        for _ in 0..400 {
            picked.push(kv.get(b"k").await.is_err());
        }
        picked
    };
    let seven = picked(7).await;
    assert_eq!(seven, picked(7).await);
    assert_ne!(seven, picked(8).await);
    let failed = seven.iter().filter(|failed| **failed).count();
    assert!((50..150).contains(&failed), "{failed}");
    Ok(())
}

#[tokio::test]
async fn a_scan_that_fails_after_its_keys_yields_them_first() -> Result<()> {
    let kv = FaultStore::each(MemoryStore::new(), Operation::Scan, Fault::FailAfter);
    kv.set(b"a", b"", None).await?;
    let mut keys = kv.scan(b"");
    assert!(keys.try_next().await?.is_some());
    assert_eq!(keys.try_next().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(keys.try_next().await?, None);
    Ok(())
}

#[test]
fn flights_are_the_inner_store_s() {
    let inner = MemoryStore::new();
    let shared = inner.flights().map(std::ptr::from_ref);
    assert!(shared.is_some());
    let faulty = FaultStore::none(inner.clone());
    assert_eq!(faulty.flights().map(std::ptr::from_ref), shared);
    let counting = CountingStore::new(inner.clone());
    assert_eq!(counting.flights().map(std::ptr::from_ref), shared);
}

#[tokio::test(start_paused = true)]
async fn every_operation_counts_once_and_as_itself() -> Result<()> {
    let kv = CountingStore::new(MemoryStore::new());
    for operation in Operation::PRIMITIVES {
        if operation == Operation::Step {
            // What the calls before it have left is none of a step's.
            kv.inner().delete(b"k").await?;
        }
        call(&kv.clone(), operation).await?;
        assert_eq!(kv.take(), Counts::from([(operation, 1)]));
    }
    assert_eq!(kv.counts(), Counts::default());
    call(kv.inner(), Operation::Get).await?;
    assert_eq!(kv.counts(), Counts::default());
    Ok(())
}

#[tokio::test]
async fn every_wrapper_hands_a_step_on_as_one_call() -> Result<()> {
    let kv = CountingStore::new(MemoryStore::new());
    let wrapped: [(&[u8], Box<dyn KvStore>); 6] = [
        (b"k", Box::new(kv.clone())),
        (b"k", Box::new(Arc::new(kv.clone()))),
        (b"k", Box::new(Box::new(kv.clone()) as Box<dyn KvStore>)),
        (b"k", Box::new(CountingStore::new(kv.clone()))),
        (b"k", Box::new(FaultStore::none(kv.clone()))),
        (b"app:k", Box::new(Prefixed::new(kv.clone(), "app:"))),
    ];
    for (at, wrapper) in wrapped {
        kv.inner().delete(at).await?;
        assert!(wrapper.step(b"k", &STEP).await?.admitted());
        assert_eq!(kv.take(), Counts::from([(Operation::Step, 1)]), "{wrapper:?}");
        assert!(kv.inner().exists(at).await?, "{wrapper:?}");
    }
    Ok(())
}

#[tokio::test]
async fn failures_count_and_what_is_never_polled_does_not() -> Result<()> {
    let kv = CountingStore::new(MemoryStore::new());
    drop(kv.get(b"k"));
    assert_eq!(kv.counts().total(), 0);
    kv.expire(b"k", Duration::ZERO).await.unwrap_err();
    assert_eq!(kv.counts(), Counts::from([(Operation::Expire, 1)]));
    Ok(())
}

#[tokio::test]
async fn what_fails_outside_never_reaches_the_counter_inside() -> Result<()> {
    let kv = FaultStore::nth(CountingStore::new(MemoryStore::new()), 0, Fault::FailBefore);
    let page = || async { Ok::<_, derp_kv_core::Error>("page") };
    kv.guarded_get("page", &GuardedGet::new(LONG), page).await.unwrap_err();
    assert_eq!(kv.inner().counts().total(), 0);
    kv.guarded_get("page", &GuardedGet::new(LONG), page).await?;
    assert_eq!(kv.inner().counts().of(Operation::Set), 1);
    Ok(())
}
