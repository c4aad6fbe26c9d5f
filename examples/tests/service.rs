//! The checkout service over a real socket, on every store.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{get, order, put, send, serve, settings, stat, webhook};
use derp_kv_core::{KvStore, RateLimit};
use derp_kv_memory::MemoryStore;
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

const ORDER: &str = r#"{"product_id":42,"quantity":2}"#;
const PAYMENT: &str = r#"{"id":"evt_1","type":"payment.succeeded","amount_cents":9900}"#;

fn memory() -> Arc<dyn KvStore> {
    Arc::new(MemoryStore::builder().max_bytes(64 * 1024 * 1024).build().unwrap())
}

/// What must hold on any store.
async fn holds_on(kv: Arc<dyn KvStore>) {
    let limit = RateLimit::new(11, Duration::from_secs(600));
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

    // Repetitions do not count: 1 of 11 is used up.
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

    assert_eq!(webhook(at, PAYMENT).await.json()["duplicate"], false);
    assert_eq!(webhook(at, PAYMENT).await.json()["duplicate"], true);
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

#[derive(Clone, Copy, Debug)]
enum Outage {
    /// The server refuses connections.
    Killed,
    /// It takes them, and answers nothing.
    Frozen,
}

/// The first call finds out. If each of the others waited as long for an answer, they would take half an
/// hour together.
async fn an_outage_is_503_at_once_and_ends(outage: Outage) {
    let mut server = Server::start().await.unwrap();
    let kv = connected(&server).await;
    let at = serve(Arc::new(kv), settings()).await;
    assert_eq!(get(at, "/products/42").await.status, 200);
    match outage {
        Outage::Killed => server.kill9(),
        Outage::Frozen => server.freeze().unwrap(),
    }
    let refused = async {
        for n in 0..300 {
            let answers = [
                get(at, "/products/42").await,
                order(at, &format!("k{n}"), ORDER).await,
                webhook(at, PAYMENT).await,
            ];
            for answer in answers {
                answer.refused(503);
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                let port = server.port().to_string();
                assert!(!answer.body.contains(&port), "no details: {answer:?}");
            }
        }
    };
    timeout(Duration::from_secs(60), refused).await.expect("it fails fast");
    assert_eq!(stat(at, "orders").await, 0, "no order is placed unguarded");
    assert_eq!(stat(at, "payments").await, 0);

    match outage {
        Outage::Killed => server.restart().await.unwrap(),
        Outage::Frozen => server.thaw().unwrap(),
    }
    let give_up = Instant::now() + Duration::from_secs(60);
    while get(at, "/products/42").await.status != 200 {
        assert!(Instant::now() < give_up, "no recovery");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(order(at, "new", ORDER).await.status, 201);
    assert_eq!(webhook(at, PAYMENT).await.body, r#"{"duplicate":false}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_valkey_is_503_and_comes_back() {
    an_outage_is_503_at_once_and_ends(Outage::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_valkey_is_503_and_comes_back() {
    an_outage_is_503_at_once_and_ends(Outage::Frozen).await;
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
}
