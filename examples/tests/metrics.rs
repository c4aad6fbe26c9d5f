//! What `/metrics` shows after a known sequence of requests.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{get, order, send, serve, serve_on, settings, webhook};
use derp_kv_conformance::{Fault, FaultStore};
use derp_kv_core::{
    Cache, Event, GuardedGet, KvStore, KvStoreExt, LinkState, Observer, Operation, RateLimit,
};
use derp_kv_examples::app::Settings;
use derp_kv_examples::database::{Database, Replica};
use derp_kv_examples::metrics::Metrics;
use derp_kv_memory::{ManualClock, MemoryStore};
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::time::timeout;

const ORDER: &str = r#"{"product_id":42,"quantity":2}"#;
const PAYMENT: &str = r#"{"id":"evt_1","type":"payment.succeeded","amount_cents":9900}"#;

fn memory() -> MemoryStore {
    MemoryStore::builder().max_bytes(64 * 1024 * 1024).build().unwrap()
}

/// The samples of a text, by their names with labels as they stand there.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

async fn scraped(at: SocketAddr) -> BTreeMap<String, f64> {
    let answer = get(at, "/metrics").await;
    assert_eq!(answer.status, 200);
    let version = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(answer.header("content-type"), Some(version));
    samples(&answer.body)
}

/// Asserts what all samples are whose names begin so, and of counters those that have counted something.
#[track_caller]
fn are(samples: &BTreeMap<String, f64>, family: &str, expected: &[(&str, f64)]) {
    let found = samples.iter().filter_map(|(name, value)| {
        let labels = name.strip_prefix(family)?;
        let whole = labels.is_empty() || labels.starts_with('{');
        let counted = *value != 0.0 || !family.ends_with("_total");
        (whole && counted).then(|| (labels.trim_matches(['{', '}']), *value))
    });
    assert_eq!(found.collect::<Vec<_>>(), expected, "{family}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_sequence_has_known_counts() {
    let settings =
        Settings { order_limit: RateLimit::new(2, Duration::from_secs(600)), ..settings() };
    let kv = settings.metrics.around(memory(), "memory");
    let at = serve(kv, settings).await;

    let pages = join_all((0..50).map(|_| get(at, "/products/42"))).await;
    assert!(pages.iter().all(|page| page.status == 200));
    assert_eq!(get(at, "/products/7").await.status, 404);
    let answers = [
        order(at, "k1", ORDER).await,
        order(at, "k1", ORDER).await,
        order(at, "k1", r#"{"product_id":42,"quantity":3}"#).await,
        order(at, "k2", ORDER).await,
        order(at, "k3", ORDER).await,
    ];
    assert_eq!(answers.map(|answer| answer.status), [201, 201, 422, 201, 429]);
    for _ in 0..3 {
        assert_eq!(webhook(at, PAYMENT).await.status, 200);
    }
    let notice = r#"{"id":"evt_2","type":"page.viewed"}"#;
    for _ in 0..2 {
        assert_eq!(webhook(at, notice).await.status, 200);
    }
    assert_eq!(send(at, "DELETE", "/products/42/cached", &[], "").await.status, 204);

    let samples = scraped(at).await;
    let requests = |outcome: &str| {
        let name = format!(r#"derpkv_cache_requests_total{{outcome="{outcome}"}}"#);
        samples.get(&name).copied().unwrap_or_default()
    };
    // Of the herd one has computed, and nobody else.
    assert_eq!(requests("computed"), 2.0, "{samples:#?}");
    assert_eq!(requests("joined") + requests("hit"), 49.0, "{samples:#?}");
    let computations = [(r#"reason="miss",succeeded="true""#, 2.0)];
    are(&samples, "derpkv_cache_computations_total", &computations);
    are(&samples, "derpkv_compute_duration_seconds_count", &[("", 2.0)]);
    let computed = samples["derpkv_compute_duration_seconds_sum"];
    assert!((0.4..10.0).contains(&computed), "two queries of 0.2 s: {computed}");
    assert_eq!(samples[r#"derpkv_compute_duration_seconds_bucket{le="0.1"}"#], 0.0);

    let requests = [
        (r#"outcome="executed""#, 3.0),
        (r#"outcome="key_reused""#, 1.0),
        (r#"outcome="replayed""#, 1.0),
    ];
    are(&samples, "derpkv_idempotency_requests_total", &requests);
    let decisions =
        [(r#"allowed="false",source="store""#, 1.0), (r#"allowed="true",source="store""#, 2.0)];
    are(&samples, "derpkv_rate_limit_decisions_total", &decisions);
    let events = [(r#"outcome="duplicate""#, 3.0), (r#"outcome="executed""#, 2.0)];
    are(&samples, "derpkv_webhook_events_total", &events);
    let refused = [(r#"operation="idempotent_execute",error_type="key_reused""#, 1.0)];
    are(&samples, "derpkv_calls_refused_total", &refused);
    let (gets, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        samples.clone().into_iter().partition(|(name, _)| name.contains("\"guarded_get\""));
    let calls = [
        (r#"operation="already_processed",outcome="duplicate""#, 1.0),
        (r#"operation="already_processed",outcome="executed""#, 1.0),
        (r#"operation="idempotent_execute",outcome="executed""#, 3.0),
        (r#"operation="idempotent_execute",outcome="key_reused""#, 1.0),
        (r#"operation="idempotent_execute",outcome="replayed""#, 1.0),
        (r#"operation="invalidate",outcome="done""#, 1.0),
        (r#"operation="process_once",outcome="duplicate""#, 2.0),
        (r#"operation="process_once",outcome="executed""#, 1.0),
        (r#"operation="rate_limit",outcome="allowed""#, 2.0),
        (r#"operation="rate_limit",outcome="denied""#, 1.0),
    ];
    are(&others, "derpkv_calls_duration_seconds_count", &calls);
    let gets = gets.iter().filter(|(name, _)| name.contains("_seconds_count"));
    assert_eq!(gets.map(|(_, count)| count).sum::<f64>(), 51.0, "{samples:#?}");
    for never in ["derpkv_lease_lost", "derpkv_values", "derpkv_refreshes", "derpkv_link"] {
        let mut counted = samples.iter().filter(|(_, count)| **count != 0.0);
        assert!(!counted.any(|(name, _)| name.starts_with(never)), "{never}: {samples:#?}");
    }
}

/// What is first seen as 1 has not increased, for who watches it.
#[test]
fn what_can_be_known_beforehand_is_there_from_the_start() {
    let metrics = Metrics::new();
    let observer = metrics.observer();
    let before = samples(&metrics.text());
    for zero in [
        "derpkv_lease_lost_total",
        "derpkv_values_undecodable_total",
        "derpkv_refreshes_failed_total",
        r#"derpkv_values_not_kept_total{reason="full"}"#,
        r#"derpkv_rate_limit_decisions_total{allowed="false",source="store"}"#,
        r#"derpkv_rate_limit_decisions_total{allowed="true",source="local"}"#,
        r#"derpkv_cache_computations_total{reason="refresh",succeeded="false"}"#,
        r#"derpkv_cache_requests_total{outcome="failed"}"#,
        r#"derpkv_idempotency_requests_total{outcome="replayed"}"#,
        r#"derpkv_webhook_events_total{outcome="given_up"}"#,
        r#"derpkv_locks_total{operation="lock",outcome="held"}"#,
    ] {
        assert_eq!(before.get(zero), Some(&0.0), "{zero}: {before:#?}");
    }
    observer.event(Event::link("a:6379", LinkState::Lost));
    let after = samples(&metrics.text());
    assert_eq!(after.len(), before.len() + 2, "the link's, and nothing else: {after:#?}");
}

/// A limit that nobody decided is a call all the same.
#[tokio::test]
async fn a_rate_limit_that_is_dropped_is_counted() {
    let metrics = Metrics::new();
    let kv = metrics.around(FaultStore::each(memory(), Operation::Incr, Fault::Hang), "memory");
    let limit = RateLimit::new(1, Duration::from_secs(60));
    timeout(Duration::from_millis(20), kv.rate_limit("ada", &limit)).await.unwrap_err();
    let samples = samples(&metrics.text());
    are(&samples, "derpkv_rate_limit_decisions_total", &[]);
    let calls = [(r#"operation="rate_limit",outcome="dropped""#, 1.0)];
    are(&samples, "derpkv_calls_duration_seconds_count", &calls);
}

/// One service of a process does not count what another one does.
#[tokio::test(flavor = "multi_thread")]
async fn two_services_have_metrics_of_their_own() {
    let [one, other] = [settings(), settings()];
    let other_at = serve(other.metrics.around(memory(), "memory"), other).await;
    let at = serve(one.metrics.around(memory(), "memory"), one).await;
    assert_eq!(get(at, "/products/42").await.status, 200);
    let computed = [(r#"outcome="computed""#, 1.0)];
    are(&scraped(at).await, "derpkv_cache_requests_total", &computed);
    are(&scraped(other_at).await, "derpkv_cache_requests_total", &[]);
}

/// Why calls fail, which the answers of the service do not say.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_counted() {
    let settings = settings();
    let failing = FaultStore::each(memory(), Operation::SetNx, Fault::FailBefore);
    let at = serve(settings.metrics.around(failing, "memory"), settings).await;
    assert_eq!(get(at, "/products/42").await.status, 503);
    assert_eq!(order(at, "k1", ORDER).await.status, 503);
    let notice = r#"{"id":"evt_2","type":"page.viewed"}"#;
    assert_eq!(webhook(at, notice).await.status, 503);

    let samples = scraped(at).await;
    let refused = ["already_processed", "guarded_get", "idempotent_execute"]
        .map(|call| (format!(r#"operation="{call}",error_type="unavailable""#), 1.0));
    let refused = refused.each_ref().map(|(labels, count)| (&**labels, *count));
    are(&samples, "derpkv_calls_refused_total", &refused);
    let unavailable = [(r#"outcome="unavailable""#, 1.0)];
    are(&samples, "derpkv_cache_requests_total", &unavailable);
    are(&samples, "derpkv_idempotency_requests_total", &unavailable);
    are(&samples, "derpkv_webhook_events_total", &unavailable);
    // Nobody has decided anything.
    are(&samples, "derpkv_rate_limit_decisions_total", &[]);
}

/// A refresh that fails is seen by nobody but the operator: readers get what was there.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_fails_behind_stale_data_is_counted() {
    let clock = ManualClock::new();
    let settings = settings();
    let kv = MemoryStore::builder().clock(clock.clone()).build().unwrap();
    let kv = settings.metrics.around(kv, "memory");
    let database = Arc::new(Database::new(Duration::ZERO));
    let at = serve_on(kv, database.clone(), settings).await;
    assert_eq!(get(at, "/products/42").await.status, 200);
    database.set_replica(Replica::Fails);
    clock.advance(Duration::from_secs(301));
    assert_eq!(get(at, "/products/42").await.status, 200);
    let failed = async {
        // The reader does not wait for the refresh that it has begun.
        while scraped(at).await["derpkv_refreshes_failed_total"] == 0.0 {}
    };
    timeout(Duration::from_secs(30), failed).await.expect("the refresh fails");
    let samples = scraped(at).await;
    are(&samples, "derpkv_refreshes_failed_total", &[("", 1.0)]);
    let requests = [(r#"outcome="computed""#, 1.0), (r#"outcome="stale""#, 1.0)];
    are(&samples, "derpkv_cache_requests_total", &requests);
    let computations = [
        (r#"reason="miss",succeeded="true""#, 1.0),
        (r#"reason="refresh",succeeded="false""#, 1.0),
    ];
    are(&samples, "derpkv_cache_computations_total", &computations);
}

#[tokio::test]
async fn each_call_of_the_store_is_measured() {
    let metrics = Metrics::new();
    let failing = FaultStore::nth_of(memory(), Operation::Get, 3, Fault::FailBefore);
    let kv = metrics.around(failing, "memory");
    kv.set(b"k", b"v", None).await.unwrap();
    for _ in 0..3 {
        kv.get(b"k").await.unwrap();
    }
    kv.get(b"k").await.unwrap_err();
    assert_eq!(kv.scan(b"").count().await, 1);
    // A wait says nothing of the store.
    kv.wait_for_change(b"k", Some(b"v"), Duration::from_millis(1)).await;

    let samples = samples(&metrics.text());
    let labels =
        |operation: &str| format!(r#"db_system_name="memory",db_operation_name="{operation}""#);
    let [get, scan, set] = ["get", "scan", "set"].map(labels);
    let failed = format!(r#"{get},error_type="unavailable""#);
    let expected = [(&*failed, 1.0), (&*get, 3.0), (&*scan, 1.0), (&*set, 1.0)];
    are(&samples, "db_client_operation_duration_seconds_count", &expected);
    let bounds = samples.keys().filter_map(|name| {
        let bucket = name.strip_prefix("db_client_operation_duration_seconds_bucket")?;
        let bound = bucket.split("le=").nth(1).unwrap();
        bucket.contains(&*set).then(|| bound.trim_matches(['"', '}']))
    });
    let expected = ["0.001", "0.005", "0.01", "0.05", "0.1", "0.5", "1", "5", "10", "+Inf"];
    assert_eq!(bounds.collect::<BTreeSet<_>>(), expected.into());
}

/// What takes too long for its caller is what the operator must see.
#[tokio::test]
async fn a_call_that_its_caller_drops_is_measured() {
    let metrics = Metrics::new();
    let kv = metrics.around(FaultStore::each(memory(), Operation::Get, Fault::Hang), "redis");
    timeout(Duration::from_millis(60), kv.get(b"k")).await.unwrap_err();
    let samples = samples(&metrics.text());
    let name = "db_client_operation_duration_seconds";
    let labels = r#"db_system_name="redis",db_operation_name="get",error_type="dropped""#;
    are(&samples, &format!("{name}_count"), &[(labels, 1.0)]);
    assert!(samples[&format!("{name}_sum{{{labels}}}")] >= 0.06);
    assert_eq!(samples[&format!("{name}_bucket{{{labels},le=\"0.05\"}}")], 0.0);
}

/// The memory store has no links, and no helper loses its lease here.
#[test]
fn whatever_else_is_told_is_counted() {
    let metrics = Metrics::new();
    let observer = metrics.observer();
    let back = LinkState::back(Duration::from_secs(3));
    for (node, state) in [
        ("a:6379", LinkState::Connected),
        ("b:6379", LinkState::Connected),
        ("a:6379", LinkState::Lost),
        ("a:6379", LinkState::FailingFast),
        ("a:6379", back),
        ("b:6379", LinkState::Lost),
    ] {
        observer.event(Event::link(node, state));
    }
    observer.event(Event::topology_changed(3));
    let samples = samples(&metrics.text());
    are(&samples, "derpkv_link_state", &[(r#"node="a:6379""#, 1.0), (r#"node="b:6379""#, 0.0)]);
    let events = [
        (r#"node="a:6379",state="back""#, 1.0),
        (r#"node="a:6379",state="connected""#, 1.0),
        (r#"node="a:6379",state="failing_fast""#, 1.0),
        (r#"node="a:6379",state="lost""#, 1.0),
        (r#"node="b:6379",state="connected""#, 1.0),
        (r#"node="b:6379",state="lost""#, 1.0),
    ];
    are(&samples, "derpkv_link_events_total", &events);
    are(&samples, "derpkv_primaries", &[("", 3.0)]);
}

#[tokio::test]
async fn locks_and_values_that_cannot_be_kept_are_counted() {
    let metrics = Metrics::new();
    let store = memory();
    let kv = metrics.around(store.clone(), "memory");
    let ttl = Duration::from_secs(60);
    let lease = kv.try_lock("job", ttl).await.unwrap().expect("it is free");
    assert!(kv.try_lock("job", ttl).await.unwrap().is_none());
    lease.release().await.unwrap();
    // Somebody else wrote it.
    store.set(b"name:1", b"no JSON", None).await.unwrap();
    let names = Cache::<_, String>::new(kv, "name:", GuardedGet::new(Duration::from_secs(60)));
    let name = names.get("1", |_| async { anyhow::Ok("ada".to_owned()) }).await.unwrap();
    assert_eq!(name, "ada");

    let samples = samples(&metrics.text());
    let locks = [
        (r#"operation="try_lock",outcome="acquired""#, 1.0),
        (r#"operation="try_lock",outcome="held""#, 1.0),
    ];
    are(&samples, "derpkv_locks_total", &locks);
    are(&samples, "derpkv_values_undecodable_total", &[("", 1.0)]);
}
