//! What an observer hears: exactly one answer for each call of a helper, and what happened on the way.

mod common;

use std::time::Duration;

use common::hears::Hears;
use common::{Owns, process};
use derp_kv_conformance::{Fault, FaultStore, Operation};
use derp_kv_core::{
    Cache, Dedup, Error, ErrorKind, Event, Fill, GuardedGet, Idempotency, KvStore, KvStoreExt,
    Layered, Lock, Observe, Observer, OnAbandoned, RateLimit, RateLimiter, Result, WithoutStore,
};
use derp_kv_memory::MemoryStore;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::time::{advance, sleep, timeout};

const TTL: Duration = Duration::from_secs(60);
const LOCK_TTL: Duration = Duration::from_secs(2);
const QUERY: Duration = Duration::from_millis(100);
const PAGE: GuardedGet = GuardedGet::new(TTL).lock_ttl(LOCK_TTL);

fn heard_on<S: KvStore>(store: S) -> (Layered<S, Observe>, Hears) {
    let hears = Hears::default();
    (Layered::new(store, Observe::with(hears.clone())), hears)
}

fn heard() -> (Layered<MemoryStore, Observe>, Hears) {
    heard_on(MemoryStore::new())
}

async fn query() -> Result<&'static str> {
    sleep(QUERY).await;
    Ok("value")
}

async fn broken() -> anyhow::Result<&'static str> {
    sleep(QUERY).await;
    Err(anyhow::anyhow!("no stock"))
}

#[tokio::test(start_paused = true)]
async fn a_miss_a_hit_and_a_herd() {
    let (kv, hears) = heard();
    kv.guarded_get("k", &PAGE, query).await.unwrap();
    let computed = "guarded_get: value computed for a miss";
    let answered = "guarded_get: computed by computed";
    assert_eq!(hears.take(), [computed, answered]);
    kv.guarded_get("k", &PAGE, query).await.unwrap();
    assert_eq!(hears.take(), ["guarded_get: hit by store"]);
    join_all((0..3).map(|_| kv.guarded_get("herd", &PAGE, query))).await;
    let mut told = hears.take();
    told.sort_unstable();
    let joined = "guarded_get: joined by joined";
    assert_eq!(told, [answered, joined, joined, computed]);
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_fails_panics_or_is_left() {
    let (kv, hears) = heard();
    let nothing = "guarded_get: nothing computed for a miss";
    kv.guarded_get("fails", &PAGE, broken).await.unwrap_err();
    assert_eq!(hears.take(), [nothing, "guarded_get: failed"]);
    let panics = || async { panic!("on purpose") };
    let call = kv.guarded_get::<_, _, _, &str, Error>("panics", &PAGE, panics);
    assert!(std::panic::AssertUnwindSafe(call).catch_unwind().await.is_err());
    assert_eq!(hears.take(), [nothing, "guarded_get: failed"]);
    timeout(QUERY / 2, kv.guarded_get("left", &PAGE, query)).await.unwrap_err();
    assert_eq!(hears.take(), [nothing, "guarded_get: dropped"]);
    kv.guarded_get("k", &PAGE.lock_ttl(Duration::ZERO), query).await.unwrap_err();
    assert_eq!(hears.take(), ["guarded_get: invalid_argument"]);
    // A future that was never polled was no call.
    drop(kv.guarded_get("k", &PAGE, query));
    assert_eq!(hears.take(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_herd_that_gives_up_and_one_that_stays() {
    let (kv, hears) = heard();
    let calls = (0..10).map(|n| {
        let patience = if n < 9 { QUERY / 2 } else { 4 * QUERY };
        timeout(patience, kv.guarded_get("k", &PAGE, query))
    });
    join_all(calls).await;
    let told = hears.take();
    let count = |what: &str| told.iter().filter(|line| line.contains(what)).count();
    assert_eq!(count("dropped"), 9, "{told:?}");
    assert_eq!(count("computed by computed"), 1, "{told:?}");
    assert_eq!(count("nothing computed"), 1, "{told:?}");
    assert_eq!(count("value computed"), 1, "{told:?}");
    assert_eq!(told.len(), 12, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn stale_values_and_their_refreshes() {
    let (kv, hears) = heard();
    let options = PAGE.stale(TTL);
    let cache = Cache::<_, u32>::new(kv, "n:", options);
    let works = |_| async { Ok::<_, anyhow::Error>(1) };
    let fails = |_| async { Err::<u32, _>(anyhow::anyhow!("no stock")) };
    cache.get("k", works).await.unwrap();
    advance(TTL).await;
    hears.take();
    cache.get("k", fails).await.unwrap();
    assert!(cache.drain(TTL).await);
    let stale = "guarded_get: stale by store";
    let nothing = "guarded_get: nothing computed for a refresh";
    assert_eq!(hears.take(), [stale, nothing, "guarded_get: refresh failed"]);
    cache.invalidate("k").await.unwrap();
    cache.put("k", &2).await.unwrap();
    assert_eq!(hears.take(), ["invalidate: done", "refresh: done"]);
    advance(TTL).await;
    cache.get("k", works).await.unwrap();
    assert!(cache.drain(TTL).await);
    assert_eq!(hears.take(), [stale, "guarded_get: value computed for a refresh"]);
    assert_eq!(cache.peek("k").await.unwrap(), Some(1));
    assert_eq!(cache.peek("other").await.unwrap(), None);
    assert_eq!(hears.take(), ["peek: hit by store", "peek: miss"]);
}

#[tokio::test(start_paused = true)]
async fn a_value_computed_beside_a_holder_and_one_that_is_not_kept() {
    let data = MemoryStore::new();
    let (kv, hears) = heard_on(process(&data));
    let other = process(&data);
    let lease = other.try_lock("k", LOCK_TTL).await.unwrap().unwrap();
    kv.guarded_get("k", &PAGE, query).await.unwrap();
    let told = hears.take();
    let beside = "guarded_get: value computed for a beside";
    let not_kept = "guarded_get: not kept, held";
    assert_eq!(told.first().map(String::as_str), Some(beside), "{told:?}");
    assert!(told.iter().all(|line| line != not_kept), "nothing was to be kept: {told:?}");
    lease.release().await.unwrap();
    // An invalidation while it computes: the value goes to its caller alone.
    let call = async {
        let (value, ()) = tokio::join!(kv.guarded_get("k", &PAGE, query), async {
            sleep(QUERY / 2).await;
            other.invalidate("k").await.unwrap();
        });
        value
    };
    call.await.unwrap();
    let told = hears.take();
    assert!(told.iter().any(|line| line == not_kept), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_answer_for_each_key() {
    let (kv, hears) = heard();
    let cache = Cache::<_, usize>::new(kv, "n:", PAGE);
    let lengths = |keys: Vec<&'static str>| async move {
        Ok::<_, Error>(keys.iter().map(|key| key.len()).collect::<Vec<_>>())
    };
    cache.get_many(&["a"], lengths).await.unwrap();
    hears.take();
    cache.get_many(&["a", "bb", "ccc", "a"], lengths).await.unwrap();
    let value = "guarded_get: value computed for a miss";
    let computed = "guarded_get: computed by computed";
    let hit = "guarded_get: hit by store";
    assert_eq!(hears.take(), [value, value, hit, computed, computed]);
    let fails = |_: Vec<&'static str>| async { Err::<Vec<usize>, _>(anyhow::anyhow!("down")) };
    cache.get_many(&["a", "new"], fails).await.unwrap_err();
    let told = hears.take();
    assert_eq!(told[told.len() - 2..], [hit, "guarded_get: failed"]);
    assert_eq!(told.len(), 3, "{told:?}");
    // A caller that goes away leaves each of its keys.
    let hangs = |_: Vec<&'static str>| std::future::pending::<Result<Vec<usize>>>();
    timeout(QUERY, cache.get_many(&["a", "x", "y"], hangs)).await.unwrap_err();
    assert_eq!(hears.take(), ["guarded_get: dropped"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_value_of_another_type_is_told() {
    let (kv, hears) = heard();
    kv.set(b"n:k", b"no number", None).await.unwrap();
    let cache = Cache::<_, u32>::new(kv, "n:", PAGE);
    cache.get("k", |_| async { Ok::<_, Error>(1) }).await.unwrap();
    let told = hears.take();
    assert_eq!(told[0], "guarded_get: undecodable");
    assert_eq!(told.last().unwrap(), "guarded_get: computed by computed");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_under_each_outcome() {
    let data = MemoryStore::new();
    let (kv, hears) = heard_on(process(&data));
    let options = Idempotency::default().lock_ttl(LOCK_TTL);
    let work = || async { Ok::<_, Error>(1) };
    kv.idempotent_execute("k", &options, work).await.unwrap();
    kv.idempotent_execute("k", &options, work).await.unwrap();
    let (executed, replayed) = ("idempotent_execute: executed", "idempotent_execute: replayed");
    assert_eq!(hears.take(), [executed, replayed]);
    kv.idempotent_execute("fails", &options, || async {
        Err::<u32, _>(anyhow::anyhow!("no stock"))
    })
    .await
    .unwrap_err();
    assert_eq!(hears.take(), ["idempotent_execute: failed"]);
    let first = options.clone().fingerprint("a".repeat(64));
    let second = options.clone().fingerprint("b".repeat(64));
    kv.idempotent_execute("reused", &first, work).await.unwrap();
    kv.idempotent_execute("reused", &second, work).await.unwrap_err();
    assert_eq!(hears.take(), [executed, "idempotent_execute: key_reused"]);
    let held = process(&data).try_lock("derp:idempotency:held", LOCK_TTL).await.unwrap();
    kv.idempotent_execute("held", &options, work).await.unwrap_err();
    assert_eq!(hears.take(), ["idempotent_execute: in_progress"]);
    drop(held);
    data.set(b"derp:idempotency:bad", b"\xff", None).await.unwrap();
    kv.idempotent_execute("bad", &options, work).await.unwrap_err();
    assert_eq!(hears.take(), ["idempotent_execute: corrupt"]);
    let reject = options.clone().on_abandoned(OnAbandoned::Reject);
    let left = kv.idempotent_execute_with("left", &reject, |attempt| async move {
        attempt.abandon();
        Err::<u32, _>(Error::new(ErrorKind::Backend, "who knows"))
    });
    left.await.unwrap_err();
    kv.idempotent_execute("left", &reject, work).await.unwrap_err();
    kv.idempotent_forget("left", &reject).await.unwrap();
    let told = ["idempotent_execute: failed", "idempotent_execute: abandoned"];
    assert_eq!(hears.take(), [told[0], told[1], "idempotent_forget: done"]);
}

#[tokio::test(start_paused = true)]
async fn events_under_each_outcome() {
    let data = MemoryStore::new();
    let (kv, hears) = heard_on(process(&data));
    let options = Dedup::default().give_up_after(2);
    let fails = || async { Err::<(), _>(anyhow::anyhow!("no stock")) };
    let works = || async { Ok::<_, Error>(()) };
    for _ in 0..2 {
        kv.process_once("poison", &options, fails).await.unwrap_err();
    }
    kv.process_once("poison", &options, works).await.unwrap();
    kv.process_once("fine", &options, works).await.unwrap();
    kv.process_once("fine", &options, works).await.unwrap();
    kv.process_forget("fine", &options).await.unwrap();
    let lease = process(&data).try_lock("derp:webhook:held", TTL).await.unwrap();
    kv.process_once("held", &options, works).await.unwrap_err();
    drop(lease);
    assert_eq!(
        hears.take(),
        [
            "process_once: failed",
            "process_once: failed",
            "process_once: given_up",
            "process_once: executed",
            "process_once: duplicate",
            "process_forget: done",
            "process_once: in_progress",
        ]
    );
    assert!(!kv.already_processed("ping", &options).await.unwrap());
    assert!(kv.already_processed("ping", &options).await.unwrap());
    let told = ["already_processed: executed", "already_processed: duplicate"];
    assert_eq!(hears.take(), told);
}

#[tokio::test(start_paused = true)]
async fn decisions_of_each_judge() {
    let (kv, hears) = heard();
    let one = RateLimit::new(1, TTL);
    kv.rate_limit("a", &one).await.unwrap();
    kv.rate_limit("a", &one).await.unwrap();
    kv.rate_limit("a", &RateLimit::smooth(0, TTL)).await.unwrap();
    kv.rate_limit_peek("a", &one).await.unwrap();
    kv.rate_limit_refund("a", &one).await.unwrap();
    kv.rate_limit_reset("a", &one).await.unwrap();
    let (allowed, denied) = ("rate_limit: allowed by store", "rate_limit: denied by store");
    let others = ["rate_limit_peek: done", "rate_limit_refund: done", "rate_limit_reset: done"];
    let policy = "rate_limit: denied by policy";
    assert_eq!(hears.take(), [allowed, denied, policy, others[0], others[1], others[2]]);
    let limiter = RateLimiter::new(kv, one.clone()).block_locally();
    for _ in 0..3 {
        limiter.check("b").await.unwrap();
    }
    assert_eq!(hears.take(), [allowed, denied, "rate_limit: denied by blocked"]);
    // Waiting for it is one call.
    let limiter = RateLimiter::new(limiter.store().clone(), one.clone());
    assert!(limiter.until_allowed("b", 2 * TTL).await.unwrap().allowed);
    assert_eq!(hears.take(), [allowed]);
    let fails = FaultStore::each(MemoryStore::new(), Operation::Incr, Fault::FailBefore);
    let (kv, hears) = heard_on(fails);
    let down = |without| RateLimiter::new(kv.clone(), one.clone()).on_store_error(without);
    kv.rate_limit("a", &one).await.unwrap_err();
    down(WithoutStore::Allow).check("a").await.unwrap();
    down(WithoutStore::Deny).check("a").await.unwrap();
    down(WithoutStore::Local { share: 1.0 }).check("a").await.unwrap();
    let told = hears.take();
    assert_eq!(
        told,
        [
            "rate_limit: unavailable",
            "rate_limit: allowed by policy",
            "rate_limit: denied by policy",
            "rate_limit: allowed by local",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn locks_and_leases_that_are_lost() {
    let data = MemoryStore::new();
    let (kv, hears) = heard_on(process(&data));
    let lease = kv.try_lock("job", LOCK_TTL).await.unwrap().unwrap();
    assert!(kv.try_lock("job", LOCK_TTL).await.unwrap().is_none());
    kv.lock("job", &Lock::new(LOCK_TTL).at_most(QUERY)).await.unwrap_err();
    assert_eq!(hears.take(), ["try_lock: acquired", "try_lock: held", "lock: held"]);
    data.delete(b"job:lock").await.unwrap();
    lease.lost().await;
    assert_eq!(hears.take(), [format!("lease of {LOCK_TTL:?} lost")]);
    drop(lease);
    // Also where the release is the first to find out.
    let lease = kv.try_lock("job", LOCK_TTL).await.unwrap().unwrap();
    data.delete(b"job:lock").await.unwrap();
    assert!(!lease.release().await.unwrap());
    assert_eq!(hears.take(), ["try_lock: acquired", &format!("lease of {LOCK_TTL:?} lost")]);
    // One that its holder ends is not lost, at whatever moment of its renewal that is.
    for millis in 0..=2 * LOCK_TTL.as_millis() as u64 / 3 {
        let lease = kv.lock("job", &Lock::new(LOCK_TTL)).await.unwrap();
        sleep(Duration::from_millis(millis)).await;
        match millis % 2 {
            0 => drop(lease),
            _ => assert!(lease.release().await.unwrap()),
        }
        sleep(LOCK_TTL).await;
        assert_eq!(hears.take(), ["lock: acquired"], "after {millis} ms");
    }
}

/// The runtime on which a lease is renewed may be blocked until the lease has expired. Then its release is the
/// first to find out, and tells.
#[tokio::test]
async fn a_lease_that_a_blocked_runtime_lost_is_told_of_at_its_release() {
    // Nobody drives it.
    let blocked = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (kv, hears) = heard_on(Layered::new(MemoryStore::new(), Owns(blocked.handle().clone())));
    let ttl = Duration::from_millis(20);
    let lease = kv.try_lock("job", ttl).await.unwrap().unwrap();
    while !lease.is_lost() || kv.exists(b"job:lock").await.unwrap() {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(hears.take(), ["try_lock: acquired"]);
    assert!(!lease.release().await.unwrap());
    assert_eq!(hears.take(), [format!("lease of {ttl:?} lost")]);
    blocked.shutdown_background();
}

/// An observer that panics, as one does whose lock is poisoned, takes nobody with it: also where it is told
/// within a drop, and of a computation that panics itself.
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_harms_no_call() {
    #[derive(Debug)]
    struct Panics;

    impl Observer for Panics {
        fn event(&self, _: Event<'_>) {
            panic!("the observer's own");
        }
    }

    let kv = Layered::new(MemoryStore::new(), Observe::with(Panics));
    assert_eq!(kv.guarded_get("k", &PAGE, query).await.unwrap(), "value");
    assert!(kv.rate_limit("k", &RateLimit::new(1, TTL)).await.unwrap().allowed);
    timeout(QUERY / 2, kv.guarded_get("left", &PAGE, query)).await.unwrap_err();
    let panics = || async { panic!("on purpose") };
    let call = kv.guarded_get::<_, _, _, &str, Error>("panics", &PAGE, panics);
    assert!(std::panic::AssertUnwindSafe(call).catch_unwind().await.is_err());
    let cache = Cache::<_, u32>::new(kv, "n:", PAGE);
    let batch = |keys: Vec<&'static str>| async move { Ok::<_, Error>(vec![1; keys.len()]) };
    assert_eq!(cache.get_many(&["a", "b"], batch).await.unwrap(), [1, 1]);
}

/// A value that was not to be kept cannot fail to be.
#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_to_be_kept_is_not_told_of() {
    let (kv, hears) = heard();
    let unstored = || async {
        kv.invalidate("k").await?;
        Ok::<_, Error>(Fill::unstored("value"))
    };
    kv.guarded_get("k", &PAGE, unstored).await.unwrap();
    let told = ["invalidate: done", "guarded_get: value computed for a miss"];
    assert_eq!(hears.take(), [told[0], told[1], "guarded_get: computed by computed"]);
}
