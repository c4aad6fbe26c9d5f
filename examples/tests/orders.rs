//! Orders, as real clients send them: with their keys, their spelling and their addresses.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{Answer, Service, open, order, send, serve, serve_on, settings, stat};
use derp_kv_core::{KvStore, RateLimit};
use derp_kv_examples::app::{self, Settings};
use derp_kv_examples::database::Database;
use derp_kv_memory::MemoryStore;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::time::Instant;

const ORDER: &str = r#"{"product_id":42,"quantity":2}"#;

fn memory() -> Arc<dyn KvStore> {
    Arc::new(MemoryStore::builder().max_bytes(64 * 1024 * 1024).build().unwrap())
}

fn at_most(limit: u64) -> Settings {
    Settings { order_limit: RateLimit::new(limit, Duration::from_secs(600)), ..settings() }
}

fn is_replay(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == Some("true")
}

/// One order of whoever calls from where this says.
async fn from(at: SocketAddr, forwarded_for: &str, key: &str) -> Answer {
    let headers = [("Idempotency-Key", key), ("X-Forwarded-For", forwarded_for)];
    send(at, "POST", "/orders", &headers, ORDER).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_any_text_with_quotes_or_without() {
    let at = serve(memory(), settings()).await;
    let longest = "k".repeat(255);
    let keys = [
        "8e03978e-40d5-43e8-bc93-6894a57f9324",
        "orders:3:1042",
        "a:lock",
        "a:attempt",
        "/carts/7@shop",
        "YW5kIG5vdw+/==",
        "two words",
        "k;v=1",
        "%2F{}'",
        "caf\u{e9}",
        &longest,
    ];
    for (number, key) in (1..).zip(keys) {
        let first = order(at, key, ORDER).await;
        assert_eq!((first.status, is_replay(&first)), (201, false), "{key}: {first:?}");
        assert_eq!(first.json()["order_id"], number, "{key} is another's key");
        for same in [key.to_owned(), format!("\"{key}\""), format!("\"{key}\";v=1;w=\"x\"")] {
            let again = order(at, &same, ORDER).await;
            assert_eq!((again.status, is_replay(&again)), (201, true), "{same}: {again:?}");
            assert_eq!(again.body, first.body, "{same}");
        }
    }
    for key in ["", "\"\"", "\"open", &"k".repeat(256)] {
        order(at, key, ORDER).await.refused(400);
    }
    send(at, "POST", "/orders", &[], ORDER).await.refused(400);
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    send(at, "POST", "/orders", &twice, ORDER).await.refused(400);
    assert_eq!(stat(at, "orders").await, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_the_same_however_it_is_written_down() {
    let at = serve(memory(), settings()).await;
    let first = order(at, "k1", ORDER).await;
    for spelling in [
        r#"{"quantity":2,"product_id":42}"#,
        " {\n\t\"product_id\" : 42 , \"quantity\" : 2 }\r\n",
        r#"{"product_\u0069d":42,"quantity":2}"#,
    ] {
        let again = order(at, "k1", spelling).await;
        assert_eq!((again.status, is_replay(&again)), (201, true), "{spelling}: {again:?}");
        assert_eq!(again.body, first.body);
    }
    for another in [r#"{"product_id":1,"quantity":2}"#, r#"{"product_id":42,"quantity":3}"#] {
        order(at, "k1", another).await.refused(422);
    }
    assert_eq!(stat(at, "orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_is_answered_and_not_counted() {
    let at = serve(memory(), at_most(5)).await;
    for repetition in 0..8 {
        let answer = order(at, "k1", ORDER).await;
        assert_eq!((answer.status, is_replay(&answer)), (201, repetition > 0), "{answer:?}");
    }
    // Nor is one that is refused before it is an order.
    for _ in 0..8 {
        order(at, "k2", "{").await.refused(400);
        order(at, "k1", r#"{"product_id":42,"quantity":3}"#).await.refused(422);
    }
    for key in ["k2", "k3", "k4", "k5"] {
        assert_eq!(order(at, key, ORDER).await.status, 201);
    }
    let denied = order(at, "k6", ORDER).await;
    denied.refused(429);
    let seconds: u64 = denied.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!((1..=600).contains(&seconds), "{seconds}");
    assert!(is_replay(&order(at, "k1", ORDER).await), "also when the limit is used up");
    assert_eq!(stat(at, "orders").await, 5);
}

/// A server on IPv6 sees IPv4 clients at addresses of IPv6.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_one_budget_over_both_versions_of_ip() {
    let (router, _drained) =
        app::service(memory(), Arc::new(Database::new(Duration::ZERO)), at_most(2));
    let mut servers = Vec::new();
    for address in ["127.0.0.1:0", "[::]:0"] {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        servers.push(SocketAddr::from(([127, 0, 0, 1], port)));
        let service = router.clone().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
    }
    let [v4, v6] = servers[..] else { panic!("two servers") };
    let post =
        async |at, key| send(at, "POST", "/orders", &[("Idempotency-Key", key)], ORDER).await;
    assert_eq!(post(v4, "k1").await.status, 201);
    assert!(is_replay(&post(v6, "k1").await), "and its keys are its own");
    assert_eq!(post(v6, "k2").await.status, 201);
    for at in [v4, v6] {
        post(at, "k3").await.refused(429);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_ipv6_has_one_budget() {
    let at = serve(memory(), Settings { trusted_proxies: 1, ..at_most(3) }).await;
    for host in ["2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", "6.6.6.6, 2001:db8:0:0:7::"] {
        assert_eq!(from(at, host, host).await.status, 201);
    }
    from(at, "2001:db8::2", "k").await.refused(429);
    // Who writes the header itself cannot choose who it is.
    from(at, "2001:db8:0:1::1, 2001:db8::3", "k").await.refused(429);
    assert_eq!(from(at, "2001:db8:0:1::1", "k").await.status, 201);
}

/// Whoever calls without a proxy is who calls, whatever the header says.
#[tokio::test(flavor = "multi_thread")]
async fn without_trusted_proxies_nobody_chooses_an_address() {
    let at = serve(memory(), at_most(3)).await;
    let answers = join_all((0..10).map(|host| async move {
        let host = format!("192.0.2.{host}");
        from(at, &host, &host).await.status
    }));
    let taken = answers.await.iter().filter(|status| **status == 201).count();
    assert_eq!(taken, 3);
}

/// The keys of the records under `derp:idempotency`, and those of their locks.
async fn records(kv: &dyn KvStore) -> (Vec<String>, Vec<String>) {
    let keys = kv.scan(b"derp:idempotency:").map(|key| String::from_utf8(key.unwrap().into()));
    let keys: Vec<_> = keys.map(Result::unwrap).collect().await;
    keys.into_iter().partition(|key| !key.ends_with(":lock"))
}

/// Sends an order, and goes away while the database is at work on it.
async fn abandon(kv: &dyn KvStore, at: SocketAddr) {
    let headers = [("Idempotency-Key", "k1"), ("X-User", "ada")];
    let connection = open(at, "POST", "/orders", &headers, ORDER).await;
    let give_up = Instant::now() + Duration::from_secs(30);
    while records(kv).await.1.is_empty() {
        assert!(Instant::now() < give_up, "the order never started");
        tokio::task::yield_now().await;
    }
    drop(connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_does_not_lose_its_order() {
    let kv = memory();
    let at = serve(kv.clone(), settings()).await;
    abandon(&kv, at).await;
    let again = order(at, "k1", ORDER).await;
    assert_eq!((again.status, is_replay(&again)), (201, true), "{again:?}");
    assert_eq!(stat(at, "orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_under_way_at_the_end_is_kept() {
    let kv = memory();
    let database = Arc::new(Database::new(Duration::from_millis(300)));
    let service = Service::start(kv.clone(), database.clone(), settings()).await;
    abandon(&kv, service.at).await;
    service.stop().await;
    let (kept, locks) = records(&kv).await;
    assert_eq!((kept.len(), locks.len(), database.stats().orders), (1, 0, 1));
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
    assert!(is_replay(&order(at, "k1", ORDER).await));
    assert_eq!(stat(at, "orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_order_is_refused_with_a_reason_and_leaves_its_key_free() {
    let at = serve(memory(), settings()).await;
    for (body, reason) in [
        ("", "body: EOF"),
        ("{", "body: EOF"),
        (r#"{"product_id":42}"#, "missing field `quantity`"),
        (r#"{"product_id":42,"quantity":-1}"#, "invalid value"),
        (r#"{"product_id":42,"quantity":0}"#, "quantity must be from 1 to 1000"),
        (r#"{"product_id":42,"quantity":1,"x":1}"#, "unknown field `x`"),
    ] {
        let detail = order(at, "k1", body).await.refused(400);
        assert!(detail.contains(reason), "{body}: {detail}");
    }
    order(at, "k1", &format!("{ORDER}{}", " ".repeat(16 * 1024))).await.refused(413);
    assert_eq!(order(at, "k1", ORDER).await.status, 201);
    // That there is no such product is an answer, and is repeated like any other.
    for repetition in 0..2 {
        let unknown = order(at, "k7", r#"{"product_id":7,"quantity":1}"#).await;
        assert_eq!(unknown.refused(404), "no product 7");
        assert_eq!(is_replay(&unknown), repetition > 0);
    }
    assert_eq!(stat(at, "orders").await, 1);
}
