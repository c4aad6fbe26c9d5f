//! What the stream of events tells, and to how many.

use std::time::Duration;

use derp_kv_examples::page::MAX_STREAMS;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::common::events::Events;
use crate::common::program::Program;
use crate::common::{get, order, stat};
use crate::shop::{ORDER, Shop};

/// An event without what differs between runs: how many commands the store took, and milliseconds.
fn exact((name, mut data): (String, Value)) -> (String, Value) {
    if let Some(data) = data.as_object_mut() {
        data.remove("commands");
        if let Some(left) = data.get_mut("left_ms").filter(|left| !left.is_null()) {
            *left = json!(if left.as_i64().unwrap() > 0 { "some" } else { "none" });
        }
    }
    (name, data)
}

fn product(state: &str, queries: u32) -> (String, Value) {
    let left = match state {
        "fresh" => json!("some"),
        "stale" => json!("none"),
        _ => Value::Null,
    };
    let data = json!({ "id": 42, "state": state, "left_ms": left, "queries": queries });
    ("product".to_owned(), data)
}

fn answered(operation: &str, outcome: &str, count: u64) -> (String, Value) {
    let data = json!({ "operation": operation, "outcome": outcome, "count": count });
    ("answered".to_owned(), data)
}

fn database(queries: u64, orders: u64) -> (String, Value) {
    let stats = json!({
        "queries": queries, "orders": orders, "payments": 0, "paid_cents": 0, "notices": 0,
    });
    ("database".to_owned(), json!({ "replica": "works", "stats": stats }))
}

#[tokio::test]
async fn the_stream_tells_exactly_what_happened() {
    let shop = Shop::start().await;
    let at = shop.at();
    let mut events = Events::open(at).await;
    let head = events.head().await;
    assert!(head[0].starts_with("HTTP/1.1 200"), "{head:?}");
    assert!(head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
    let (name, snapshot) = events.next().await.unwrap();
    assert_eq!(name, "snapshot");
    let absent = |id| json!({ "id": id, "state": "absent", "left_ms": null, "queries": 0 });
    let expected = json!({
        "store": { "backend": "memory", "up": true },
        "commands": 0,
        "calls": {},
        "refreshes_failed": 0,
        "database": database(0, 0).1,
        "products": [absent(1), absent(42)],
        "herd": null,
    });
    assert_eq!(snapshot, expected);

    assert_eq!(get(at, "/products/42").await.status, 200);
    assert_eq!(get(at, "/products/42").await.status, 200);
    for _ in 0..2 {
        assert_eq!(order(at, "k", ORDER).await.status, 201);
    }
    assert_eq!(shop.control("/page/age", &json!({ "product": 42 })).await.status, 200);
    for expected in [
        // The first asks the database,
        database(1, 0),
        product("absent", 1),
        product("absent", 0),
        product("fresh", 0),
        answered("guarded_get", "computed", 1),
        product("fresh", 0),
        // and the second does not.
        answered("guarded_get", "hit", 1),
        product("fresh", 0),
        // An order is placed,
        answered("rate_limit", "allowed", 1),
        database(1, 1),
        answered("idempotent_execute", "executed", 1),
        // and its repetition is not, and is not counted.
        answered("idempotent_execute", "replayed", 1),
        product("stale", 0),
    ] {
        assert_eq!(exact(events.next().await.unwrap()), expected);
    }

    // The refresh goes on beside its answer, so the two have no order between them.
    assert_eq!(get(at, "/products/42").await.status, 200);
    let mut seen = Vec::new();
    while seen.last() != Some(&product("fresh", 0)) {
        seen.push(exact(events.next().await.unwrap()));
    }
    let only =
        |name: &str| seen.iter().filter(|event| event.0 == name).cloned().collect::<Vec<_>>();
    assert_eq!(only("answered"), [answered("guarded_get", "stale", 1)]);
    assert_eq!(only("database"), [database(2, 1)]);
    let mut products = only("product");
    products.dedup();
    let expected =
        [product("stale", 0), product("stale", 1), product("stale", 0), product("fresh", 0)];
    assert!(expected.ends_with(&products) && products.len() >= 3, "{products:?}");

    let late = Events::open(at).await.until("snapshot", |_| true).await;
    assert_eq!(late["calls"]["guarded_get"], json!({ "computed": 1, "hit": 1, "stale": 1 }));
    assert_eq!(late["database"], database(2, 1).1);
}

#[tokio::test]
async fn there_are_so_many_streams_and_no_more() {
    let shop = Shop::start().await;
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        let mut events = Events::open(shop.at()).await;
        events.until("snapshot", |_| true).await;
        streams.push(events);
    }
    let refused = get(shop.at(), "/page/events").await;
    assert_eq!(refused.refused(503), "too many look at the page");
    assert_eq!(refused.header("retry-after"), Some("5"));
    drop(streams.pop());
    // The service learns that somebody went away when it next reads or writes.
    let again = async {
        loop {
            let mut events = Events::open(shop.at()).await;
            if events.head().await[0].starts_with("HTTP/1.1 200") {
                break;
            }
        }
    };
    timeout(Duration::from_secs(60), again).await.expect("a place is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_gets_a_snapshot_and_holds_nothing_up() {
    const NOTICES: u64 = 200_000;
    let shop = Shop::start().await;
    let mut slow = Events::open(shop.at()).await;
    slow.until("snapshot", |_| true).await;
    for _ in 0..NOTICES {
        shop.database.count_notice();
    }
    assert_eq!(stat(shop.at(), "notices").await, NOTICES);
    let (mut messages, mut snapshots, mut last) = (0, 0, 0);
    while last < NOTICES {
        let (name, data) = slow.next().await.unwrap();
        messages += 1;
        snapshots += u64::from(name == "snapshot");
        let stats = if name == "snapshot" { &data["database"] } else { &data };
        let notices = stats["stats"]["notices"].as_u64().unwrap();
        // A snapshot stands for what was missed, and what comes after it goes on from there.
        assert!(if name == "snapshot" { notices > last } else { notices == last + 1 });
        last = notices;
    }
    assert!(snapshots >= 1 && messages < NOTICES, "{snapshots} snapshots, {messages} messages");
}

/// A browser tells a quiet stream from a lost one, and comes back to a lost one soon.
#[tokio::test]
async fn a_quiet_stream_has_heartbeats() {
    let shop = Shop::start().await;
    let mut events = Events::open(shop.at()).await;
    let mut retry = false;
    loop {
        let line = events.line().await.expect("the stream goes on");
        retry |= line == "retry: 1000";
        if line.starts_with(':') {
            break;
        }
    }
    assert!(retry, "it says when to come back");
}

#[tokio::test]
async fn the_streams_end_when_the_service_stops() {
    let shop = Shop::start().await;
    let mut reader = Events::open(shop.at()).await;
    reader.until("snapshot", |_| true).await;
    shop.page.close();
    assert_eq!(reader.next().await, None, "it ends");
    assert_eq!(get(shop.at(), "/page/events").await.status, 503, "no other begins");
    timeout(Duration::from_secs(5), shop.service.stop())
        .await
        .expect("nothing is left to wait for");
}

#[tokio::test]
async fn the_program_stops_while_somebody_looks_at_the_page() {
    let mut running = Program::start(&[]);
    let at = running.at();
    let mut reader = Events::open(at).await;
    reader.until("snapshot", |_| true).await;
    running.terminate();
    assert_eq!(reader.next().await, None, "it ends");
    let (status, log, _) = running.ended();
    assert!(status.success());
    assert!(!log.iter().any(|line| line.contains("with work under way")), "{log:?}");
}
