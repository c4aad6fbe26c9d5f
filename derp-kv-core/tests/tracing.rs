//! The spans and events of the feature `tracing`: their names and fields, which are part of the API, and
//! that none of them holds a key or a value.
#![cfg(feature = "tracing")]

#[path = "common/captures.rs"]
mod captures;
mod common;

use std::time::Duration;

use captures::Captures;
use common::process;
use derp_kv_conformance::{Fault, FaultStore, Operation};
use derp_kv_core::{
    Cache, Dedup, Error, GuardedGet, Idempotency, KvStore, KvStoreExt, Lock, OnStoreError,
    RateLimit, RateLimiter, Result, WithoutStore,
};
use derp_kv_memory::MemoryStore;
use futures_util::future::join_all;
use tokio::time::{advance, sleep, timeout};
use tracing::Instrument as _;

const TTL: Duration = Duration::from_secs(60);
const LOCK_TTL: Duration = Duration::from_secs(2);
const QUERY: Duration = Duration::from_millis(100);
const PAGE: GuardedGet = GuardedGet::new(TTL).lock_ttl(LOCK_TTL);

async fn query() -> Result<&'static str> {
    sleep(QUERY).await;
    Ok("value")
}

/// The span of a call that did not wait, as it is written down.
fn call(operation: &str, outcome: &str, source: Option<&str>) -> String {
    called(operation, outcome, source, false)
}

fn called(operation: &str, outcome: &str, source: Option<&str>, waited: bool) -> String {
    let source = source.map(|source| format!(" derpkv.source={source}")).unwrap_or_default();
    format!(
        "INFO derp_kv_core derpkv.call: derpkv.operation={operation} derpkv.outcome={outcome}{source} \
         derpkv.waited={waited} otel.name={operation} <"
    )
}

fn refused(operation: &str, kind: &str) -> String {
    format!(
        "INFO derp_kv_core derpkv.call: derpkv.operation={operation} derpkv.outcome={kind} \
         derpkv.waited=false error.type={kind} otel.name={operation} otel.status_code=ERROR <"
    )
}

#[tokio::test(start_paused = true)]
async fn each_call_is_a_span_with_its_outcome() {
    let captures = Captures::default();
    let _here = captures.here();
    let kv = MemoryStore::new();
    let work = || async { Ok::<_, Error>(1) };
    let (once, events) = (Idempotency::default(), Dedup::default());
    let limit = RateLimit::new(1, TTL);

    kv.guarded_get("k", &PAGE, query).await.unwrap();
    kv.guarded_get("k", &PAGE, query).await.unwrap();
    timeout(QUERY / 2, kv.guarded_get("left", &PAGE, query)).await.unwrap_err();
    kv.guarded_get("k", &PAGE.lock_ttl(Duration::ZERO), query).await.unwrap_err();
    kv.invalidate("k").await.unwrap();
    kv.refresh("k", b"v", None).await.unwrap();
    kv.idempotent_execute("k", &once, work).await.unwrap();
    kv.idempotent_execute("k", &once, work).await.unwrap();
    kv.idempotent_forget("k", &once).await.unwrap();
    kv.process_once("k", &events, work).await.unwrap();
    kv.process_once("k", &events, work).await.unwrap();
    kv.process_forget("k", &events).await.unwrap();
    kv.already_processed("other", &events).await.unwrap();
    kv.rate_limit("k", &limit).await.unwrap();
    kv.rate_limit("k", &limit).await.unwrap();
    kv.rate_limit_peek("k", &limit).await.unwrap();
    kv.rate_limit_refund("k", &limit).await.unwrap();
    kv.rate_limit_reset("k", &limit).await.unwrap();
    let lease = kv.try_lock("k", TTL).await.unwrap();
    kv.try_lock("k", TTL).await.unwrap();
    drop(lease);
    kv.lock("k", &Lock::new(TTL)).await.unwrap();
    assert_eq!(
        captures.take(),
        [
            call("guarded_get", "computed", Some("computed")),
            call("guarded_get", "hit", Some("store")),
            call("guarded_get", "dropped", None),
            refused("guarded_get", "invalid_argument"),
            call("invalidate", "done", None),
            call("refresh", "done", None),
            call("idempotent_execute", "executed", None),
            call("idempotent_execute", "replayed", None),
            call("idempotent_forget", "done", None),
            call("process_once", "executed", None),
            call("process_once", "duplicate", None),
            call("process_forget", "done", None),
            call("already_processed", "executed", None),
            call("rate_limit", "allowed", Some("store")),
            call("rate_limit", "denied", Some("store")),
            call("rate_limit_peek", "done", None),
            call("rate_limit_refund", "done", None),
            call("rate_limit_reset", "done", None),
            call("try_lock", "acquired", None),
            call("try_lock", "held", None),
            call("lock", "acquired", None),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_an_error_and_what_others_did_first_is_none() {
    let captures = Captures::default();
    let _here = captures.here();
    let kv = MemoryStore::new();
    let fails = || async { Err::<&str, _>(anyhow::anyhow!("no stock")) };
    kv.guarded_get("k", &PAGE, fails).await.unwrap_err();
    let failed = "INFO derp_kv_core derpkv.call: derpkv.operation=guarded_get derpkv.outcome=failed \
                  derpkv.waited=false error.type=_OTHER otel.name=guarded_get \
                  otel.status_code=ERROR <";
    assert_eq!(captures.take(), [failed]);
    let lease = kv.try_lock("derp:idempotency:k", TTL).await.unwrap();
    captures.take();
    let once = Idempotency::default();
    kv.idempotent_execute("k", &once, || async { Ok::<_, Error>(1) }).await.unwrap_err();
    let lock = Lock::new(TTL).at_most(QUERY);
    kv.lock("derp:idempotency:k", &lock).await.unwrap_err();
    drop(lease);
    let waited = |operation, outcome| called(operation, outcome, None, true);
    let told = [waited("idempotent_execute", "in_progress"), waited("lock", "held")];
    assert_eq!(captures.take(), told);
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_somebody_else_says_so() {
    let captures = Captures::default();
    let _here = captures.here();
    let data = MemoryStore::new();
    let kv = process(&data);
    join_all((0..2).map(|_| data.guarded_get("k", &PAGE, query))).await;
    let joined = called("guarded_get", "joined", Some("joined"), true);
    let mut spans = captures.take();
    spans.sort_unstable();
    assert_eq!(spans, [call("guarded_get", "computed", Some("computed")), joined]);

    // Who gave up waiting, waited.
    let left = timeout(QUERY / 2, data.guarded_get("left", &PAGE, query));
    let (computed, left) = tokio::join!(data.guarded_get("left", &PAGE, query), left);
    computed.unwrap();
    left.unwrap_err();
    let spans = captures.take();
    assert_eq!(spans[0], called("guarded_get", "dropped", None, true));
    // Nobody else is there to be waited for.
    let down = FaultStore::each(MemoryStore::new(), Operation::Get, Fault::FailBefore);
    let page = PAGE.on_store_error(OnStoreError::Compute);
    down.guarded_get("k", &page, query).await.unwrap();
    let spans = captures.take();
    assert_eq!(spans.last(), Some(&call("guarded_get", "computed", Some("computed"))));

    // In another process, and for a lock.
    let other = process(&data);
    tokio::join!(other.guarded_get("far", &PAGE, query), kv.guarded_get("far", &PAGE, query))
        .1
        .unwrap();
    let spans = captures.take();
    assert!(spans.contains(&called("guarded_get", "hit", Some("store"), true)), "{spans:?}");
    let lease = other.try_lock("k", LOCK_TTL).await.unwrap();
    let lock = Lock::new(LOCK_TTL);
    tokio::join!(kv.lock("k", &lock), async {
        sleep(QUERY).await;
        drop(lease);
    })
    .0
    .unwrap();
    let spans = captures.take();
    assert!(spans.contains(&called("lock", "acquired", None, true)), "{spans:?}");
}

#[tokio::test(start_paused = true)]
async fn a_computation_is_inside_of_its_call_and_a_refresh_follows_it() {
    let captures = Captures::default();
    let _here = captures.here();
    let cache = Cache::<_, u32>::new(MemoryStore::new(), "n:", PAGE.stale(TTL));
    let query = |_| async {
        let select = tracing::info_span!("select");
        async {
            sleep(QUERY).await;
            Ok::<_, Error>(1)
        }
        .instrument(select)
        .await
    };
    let request = tracing::info_span!("request");
    cache.get("k", query).instrument(request).await.unwrap();
    let inside = |line: String| line.replace('<', "<request");
    assert_eq!(
        captures.take(),
        [
            "INFO tracing select: <derpkv.call".to_owned(),
            inside(call("guarded_get", "computed", Some("computed"))),
            "INFO tracing request: <".to_owned(),
        ]
    );
    advance(TTL).await;
    cache.get("k", query).await.unwrap();
    // The call's span ends with the call, and not with the refresh that it began.
    assert_eq!(captures.take(), [call("guarded_get", "stale", Some("store"))]);
    assert!(cache.drain(TTL).await);
    assert_eq!(
        captures.take(),
        [
            "INFO tracing select: <derpkv.refresh".to_owned(),
            "INFO derp_kv_core derpkv.refresh: (follows)=derpkv.call derpkv.operation=guarded_get <"
                .to_owned(),
        ]
    );
    let keys = |keys: Vec<&'static str>| async move {
        Ok::<_, Error>(keys.iter().map(|_| 1).collect::<Vec<_>>())
    };
    cache.get_many(&["k", "a", "b"], keys).await.unwrap();
    let spans = captures.take();
    let batch = spans.iter().find(|line| line.contains("derpkv.call"));
    assert!(batch.is_some_and(|line| line.contains("derpkv.batch.size=3")), "{spans:?}");
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_should_hear_of_is_an_event() {
    let captures = Captures::default();
    let _here = captures.here();
    let events = || {
        let lines = captures.take().into_iter();
        lines.filter(|line| !line.contains("derpkv.call:")).collect::<Vec<_>>()
    };
    let kv = MemoryStore::new();
    let cache = Cache::<_, u32>::new(kv.clone(), "n:", PAGE.stale(TTL));
    kv.set(b"n:k", b"no number", Some(TTL)).await.unwrap();
    cache.get("k", |_| async { Ok::<_, Error>(1) }).await.unwrap();
    assert_eq!(
        events(),
        ["WARN derp_kv_core a cached value could not be decoded and is computed anew: \
          derpkv.operation=guarded_get <derpkv.call"]
    );
    advance(TTL).await;
    cache.get("k", |_| async { Err::<u32, _>(anyhow::anyhow!("no stock")) }).await.unwrap();
    assert!(cache.drain(TTL).await);
    assert_eq!(
        events(),
        [
            "WARN derp_kv_core a refresh failed: derpkv.operation=guarded_get <derpkv.refresh",
            "INFO derp_kv_core derpkv.refresh: (follows)=derpkv.call derpkv.operation=guarded_get <",
        ]
    );
    let full = FaultStore::each(MemoryStore::new(), Operation::Set, Fault::FailBefore);
    full.guarded_get("k", &PAGE, query).await.unwrap();
    assert_eq!(
        events(),
        ["WARN derp_kv_core a computed value was not kept: derpkv.operation=guarded_get \
          error.type=unavailable <derpkv.call"]
    );
    kv.set(b"derp:idempotency:k", b"\xff", None).await.unwrap();
    let work = || async { Ok::<_, Error>(1) };
    kv.idempotent_execute("k", &Idempotency::default(), work).await.unwrap_err();
    assert_eq!(
        events(),
        ["ERROR derp_kv_core a stored record is corrupt, or another helper's: \
          derpkv.operation=idempotent_execute <derpkv.call"]
    );
    let lease = kv.try_lock("job", LOCK_TTL).await.unwrap().unwrap();
    kv.delete(b"job:lock").await.unwrap();
    lease.lost().await;
    assert_eq!(
        events(),
        ["WARN derp_kv_core a lease was lost under its holder: derpkv.lease.ttl=2.0 <"]
    );
}

/// A subscriber that takes everything, of calls that succeed and that fail in every way, and no key, value,
/// id, fingerprint or message of the caller's in any of it; nor in the errors.
#[tokio::test(start_paused = true)]
async fn no_key_and_no_value_ever_shows() {
    const SECRET: &str = "s3cr3t";
    let captures = Captures::default();
    let _here = captures.here();
    let key = format!("key-{SECRET}");
    let mut errors = Vec::new();
    for operation in [None].into_iter().chain(Operation::PRIMITIVES.map(Some)) {
        for fault in [Fault::FailBefore, Fault::FailAfter] {
            let data = MemoryStore::new();
            let Some(operation) = operation else { continue };
            let kv = FaultStore::each(data.clone(), operation, fault);
            let cache = Cache::<_, String>::new(kv.clone(), format!("{SECRET}:"), PAGE.stale(TTL));
            let value = || async { Ok::<_, Error>(format!("value-{SECRET}")) };
            let fails = || async { Err::<String, _>(anyhow::anyhow!("{SECRET}")) };
            let once = Idempotency::default().fingerprint(SECRET).key_prefix(SECRET);
            let events = Dedup::default().give_up_after(1);
            let note = &mut |error: Option<Error>| {
                errors.extend(error.map(|error| format!("{error} {error:?}")));
            };
            for _ in 0..2 {
                note(kv.guarded_get(&key, &PAGE, value).await.err());
                drop(kv.guarded_get(&key, &PAGE, fails).await);
                note(cache.get(&key, move |_| value()).await.err());
                note(
                    cache
                        .get_many(std::slice::from_ref(&key), |keys: Vec<String>| async move {
                            Ok::<_, Error>(keys)
                        })
                        .await
                        .err(),
                );
                note(cache.peek(&key).await.err());
                note(cache.put(&key, &SECRET.to_owned()).await.err());
                note(cache.invalidate(&key).await.err());
                note(kv.idempotent_execute(&key, &once, value).await.err());
                drop(kv.idempotent_execute(&key, &once, fails).await);
                note(
                    kv.idempotent_execute(&key, &once.clone().fingerprint("other"), value)
                        .await
                        .err(),
                );
                note(kv.process_once(&key, &events, value).await.err());
                drop(kv.process_once(&key, &events, fails).await);
                note(kv.already_processed(&key, &events).await.err());
                for limit in
                    [RateLimit::new(1, TTL), RateLimit::smooth(1, TTL), RateLimit::strict(1, TTL)]
                {
                    note(kv.rate_limit(&key, &limit).await.err());
                    note(kv.rate_limit_peek(&key, &limit).await.err());
                    let limiter = RateLimiter::new(kv.clone(), limit).block_locally();
                    note(limiter.on_store_error(WithoutStore::Deny).check(&key).await.err());
                }
                note(kv.try_lock(&key, LOCK_TTL).await.err());
                note(kv.lock(&key, &Lock::new(LOCK_TTL).at_most(QUERY)).await.err());
                // What is stored is nobody's record.
                for stored in
                    ["", "derp:idempotency:", "derp:webhook:", "derp:ratelimit:", "derp:smooth:"]
                {
                    let stored = format!("{stored}{key}");
                    data.set(stored.as_bytes(), format!("{{{SECRET}").as_bytes(), None)
                        .await
                        .unwrap();
                }
                advance(TTL).await;
            }
            assert!(cache.drain(TTL).await);
        }
    }
    let told = captures.take();
    assert!(told.len() > 500, "only {} spans and events", told.len());
    assert!(errors.len() > 100, "only {} errors", errors.len());
    let shown: Vec<_> = told.iter().chain(&errors).filter(|line| line.contains(SECRET)).collect();
    assert!(shown.is_empty(), "{shown:#?}");
}
