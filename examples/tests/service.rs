//! The checkout service over a real socket, on every store.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{get, open, order, put, send, serve, serve_on, settings, stat, webhook};
use derp_kv_core::{KvStore, RateLimit};
use derp_kv_examples::database::Database;
use derp_kv_memory::MemoryStore;
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

const ORDER: &str = r#"{"product_id":42,"quantity":2}"#;

fn memory() -> Arc<dyn KvStore> {
    Arc::new(MemoryStore::builder().max_bytes(64 * 1024 * 1024).build().unwrap())
}

/// What must hold on any store.
async fn holds_on(kv: Arc<dyn KvStore>) {
    let limit = RateLimit::new(60, Duration::from_secs(600));
    let at = serve(kv, app_settings(limit)).await;

    let pages = join_all((0..200).map(|_| get(at, "/products/42"))).await;
    for page in &pages {
        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(page.body, r#"{"id":42,"name":"kettle","price_cents":4950}"#);
        assert_eq!(page.header("content-type"), Some("application/json"));
    }
    assert_eq!(stat(at, "queries").await, 1, "a herd of 200 asks the database once");

    let orders = join_all((0..50).map(|_| order(at, "k1", ORDER))).await;
    for order in &orders {
        assert_eq!(order.status, 201, "{order:?}");
        assert_eq!(order.json()["total_cents"], 9_900);
        assert_eq!(order.body, orders[0].body);
    }
    let replays = orders.iter().filter(|order| order.header("idempotent-replayed") == Some("true"));
    assert_eq!(replays.count(), 49);
    assert_eq!(stat(at, "orders").await, 1, "duplicates make one order");

    // 50 of 60 are used up.
    let more =
        join_all((0..30).map(|n| async move { order(at, &format!("m{n}"), ORDER).await })).await;
    let allowed = more.iter().filter(|order| order.status == 201).count();
    assert_eq!(allowed, 10, "the limit is exact");
    for denied in more.iter().filter(|order| order.status != 201) {
        assert_eq!(denied.status, 429, "{denied:?}");
        let seconds: u64 = denied.header("retry-after").expect("Retry-After").parse().unwrap();
        assert!((1..=600).contains(&seconds), "{seconds}");
    }
    assert_eq!(stat(at, "orders").await, 11);
    let other = [("Idempotency-Key", "k1"), ("X-User", "bob")];
    let other = send(at, "POST", "/orders", &other, ORDER).await;
    assert_eq!((other.status, other.header("idempotent-replayed")), (201, None), "bob is not ada");

    let event = r#"{"id":"evt_1","type":"payment.succeeded"}"#;
    assert_eq!(webhook(at, event).await.json()["duplicate"], false);
    assert_eq!(webhook(at, event).await.json()["duplicate"], true);
    let notice = r#"{"id":"evt_1","type":"page.viewed"}"#;
    let answers = join_all((0..20).map(|_| webhook(at, notice))).await;
    let firsts = answers.iter().filter(|answer| answer.json()["duplicate"] == false);
    assert_eq!(firsts.count(), 1);
    assert_eq!((stat(at, "payments").await, stat(at, "notices").await), (1, 1));

    let changed = put(at, "/products/42", r#"{"name":"blue kettle","price_cents":5250}"#).await;
    let blue = r#"{"id":42,"name":"blue kettle","price_cents":5250}"#;
    assert_eq!((changed.status, &*changed.body), (200, blue));
    let pages = join_all((0..50).map(|_| get(at, "/products/42"))).await;
    assert!(pages.iter().all(|page| page.body == blue), "{pages:?}");
    assert_eq!(stat(at, "queries").await, 2, "a change costs one query");
}

fn app_settings(order_limit: RateLimit) -> derp_kv_examples::app::Settings {
    derp_kv_examples::app::Settings { order_limit, ..settings() }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_memory() {
    holds_on(memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redb() {
    let file = common::scratch("service.redb");
    let kv =
        derp_kv_examples::redb_store::RedbStore::open(&file, redb::Durability::None).await.unwrap();
    holds_on(Arc::new(kv)).await;
}

async fn connected(server: &Server) -> ValkeyStore {
    let config = ValkeyConfig::default().addresses([server.address()]);
    ValkeyStore::connect(config).await.expect("the server answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn on_valkey() {
    let server = Server::start().await.unwrap();
    holds_on(Arc::new(connected(&server).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_valkey_is_503_and_comes_back() {
    let mut server = Server::start().await.unwrap();
    let kv = connected(&server).await;
    let at = serve(Arc::new(kv), settings()).await;
    assert_eq!(get(at, "/products/42").await.status, 200);
    server.kill9();
    for answer in [get(at, "/products/42").await, order(at, "k1", ORDER).await] {
        assert_eq!(answer.refused(503), "try again later");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        let port = server.port().to_string();
        assert!(!answer.body.contains(&port), "no details: {answer:?}");
    }
    assert_eq!(stat(at, "orders").await, 0);

    server.restart().await.unwrap();
    let give_up = Instant::now() + Duration::from_secs(60);
    while get(at, "/products/42").await.status != 200 {
        assert!(Instant::now() < give_up, "no recovery");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(order(at, "k2", ORDER).await.status, 201);
}

/// An absence is an answer that is cached, and not an error that each asks for.
#[tokio::test(flavor = "multi_thread")]
async fn a_herd_on_a_missing_product_makes_one_query() {
    let at = serve(memory(), settings()).await;
    for _ in 0..2 {
        let answers = join_all((0..30).map(|_| get(at, "/products/999999"))).await;
        assert!(answers.iter().all(|answer| answer.status == 404));
        assert_eq!(stat(at, "queries").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_refused_with_a_reason() {
    let at = serve(memory(), settings()).await;
    assert_eq!(get(at, "/products/kettle").await.refused(400), "the product id must be a number");
    assert_eq!(get(at, "/products/7").await.refused(404), "no product 7");
    assert_eq!(get(at, "/nothing").await.refused(404), "there is nothing at this path");
    assert_eq!(
        send(at, "DELETE", "/orders", &[], "").await.refused(405),
        "this path does not take this method"
    );

    let missing = send(at, "POST", "/orders", &[], ORDER).await;
    assert_eq!(missing.refused(400), "send one Idempotency-Key header");
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    assert_eq!(send(at, "POST", "/orders", &twice, ORDER).await.status, 400);
    let user = [("Idempotency-Key", "a"), ("X-User", "a:b")];
    assert!(send(at, "POST", "/orders", &user, ORDER).await.refused(400).contains("X-User"));
    for key in ["", "\"\"", "a b", "a:lock", &"k".repeat(256)] {
        assert!(order(at, key, ORDER).await.refused(400).contains("Idempotency-Key"), "{key}");
    }
    for (body, reason) in [
        ("", "body: EOF"),
        ("{", "body: EOF"),
        (r#"{"product_id":42}"#, "missing field `quantity`"),
        (r#"{"product_id":42,"quantity":-1}"#, "invalid value"),
        (r#"{"product_id":42,"quantity":0}"#, "quantity must be from 1 to 1000"),
        (r#"{"product_id":42,"quantity":1,"x":1}"#, "unknown field `x`"),
    ] {
        let message = order(at, "bad", body).await.refused(400);
        assert!(message.contains(reason), "{body}: {message}");
    }
    let unknown = order(at, "k7", r#"{"product_id":7,"quantity":1}"#).await;
    assert_eq!(unknown.refused(404), "no product 7");
    assert_eq!(order(at, "k7", ORDER).await.status, 201, "a failure leaves the key free");
    let large = format!("{ORDER}{}", " ".repeat(16 * 1024));
    assert!(order(at, "k8", &large).await.refused(413).contains("16384 bytes"));

    let event = r#"{"id":"a:lock","type":"payment.succeeded"}"#;
    assert!(webhook(at, event).await.refused(400).contains("id must be"));
    let event = r#"{"id":"lock","type":"payment.succeeded"}"#;
    assert_eq!(webhook(at, event).await.status, 200);
    assert!(webhook(at, r#"{"id":"e","type":"?"}"#).await.refused(400).contains("type must be"));
    assert_eq!(stat(at, "orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_another_payload_is_422() {
    let at = serve(memory(), settings()).await;
    assert_eq!(order(at, "\"k1\"", ORDER).await.status, 201);
    assert_eq!(order(at, "k1", ORDER).await.header("idempotent-replayed"), Some("true"));
    let other = order(at, "k1", r#"{"product_id":42,"quantity":3}"#).await;
    assert!(other.refused(422).contains("another request body"));
    assert_eq!(stat(at, "orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_order_is_409_for_its_duplicate() {
    let slow = Arc::new(Database::new(Duration::from_secs(4)));
    let at = serve_on(memory(), slow, settings()).await;
    let (first, second) = tokio::join!(order(at, "k1", ORDER), order(at, "k1", ORDER));
    let (done, refused) = if first.status == 201 { (first, second) } else { (second, first) };
    assert_eq!(done.status, 201);
    refused.refused(409);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(order(at, "k1", ORDER).await.header("idempotent-replayed"), Some("true"));
    assert_eq!(stat(at, "orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_does_not_lose_its_order() {
    let kv = memory();
    let at = serve(kv.clone(), settings()).await;
    let headers = [("Idempotency-Key", "k1"), ("X-User", "ada")];
    let connection = open(at, "POST", "/orders", &headers, ORDER).await;
    let lock = b"derp:idempotency:user:ada:k1:POST /orders:lock";
    let give_up = Instant::now() + Duration::from_secs(30);
    while !kv.exists(lock).await.unwrap() {
        assert!(Instant::now() < give_up, "the order never started");
        tokio::task::yield_now().await;
    }
    drop(connection);
    let again = order(at, "k1", ORDER).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(stat(at, "orders").await, 1);
}
