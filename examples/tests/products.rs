//! Products while they change, and while the database fails.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{Answer, Service, answer, get, open, put, send, serve_on, settings, stat};
use derp_kv_core::KvStore;
use derp_kv_examples::database::{Database, Replica};
use derp_kv_memory::{ManualClock, MemoryStore};
use futures_util::future::join_all;
use tokio::time::Instant;

const KETTLE: &str = r#"{"id":42,"name":"kettle","price_cents":4950}"#;
const BLUE: &str = r#"{"id":42,"name":"blue kettle","price_cents":5250}"#;
const MAKE_BLUE: &str = r#"{"name":"blue kettle","price_cents":5250}"#;
/// The TTL of products, and some more.
const LATER: Duration = Duration::from_secs(301);

/// A service whose store and database a test knows.
struct Shop {
    kv: Arc<dyn KvStore>,
    clock: ManualClock,
    database: Arc<Database>,
}

impl Shop {
    fn new() -> Self {
        Self::with_queries_of(Duration::from_millis(1))
    }

    fn with_queries_of(delay: Duration) -> Self {
        let clock = ManualClock::new();
        let kv = Arc::new(MemoryStore::builder().clock(clock.clone()).build().unwrap());
        Self { kv, clock, database: Arc::new(Database::new(delay)) }
    }

    async fn serve(&self) -> SocketAddr {
        serve_on(self.kv.clone(), self.database.clone(), settings()).await
    }

    /// Somebody changes the product without the service.
    async fn change_behind_its_back(&self) {
        let changed = self.database.change_product(42, "blue kettle".to_owned(), 5_250).await;
        assert!(changed.is_some());
    }
}

/// Waits for what comes for certain, and fails where it does not.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < give_up, "it never came: {what}");
        tokio::task::yield_now().await;
    }
}

#[track_caller]
fn assert_shows(page: &Answer, product: &str) {
    assert_eq!((page.status, &*page.body), (200, product));
}

/// The read that is under way has the old product already, and must not bring it back.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_the_next_page_shows_it_whoever_is_reading() {
    let shop = Shop::new();
    let at = shop.serve().await;
    shop.database.set_replica(Replica::Hangs);
    let slow = open(at, "GET", "/products/42", &[], "").await;
    until("the slow query", async || stat(at, "queries").await == 1).await;

    assert_shows(&put(at, "/products/42", MAKE_BLUE).await, BLUE);
    shop.database.set_replica(Replica::Works);
    assert_shows(&answer(slow).await, KETTLE);
    assert_shows(&get(at, "/products/42").await, BLUE);
}

/// Those who read while the write is under way get the old product, and must not leave it behind.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_the_next_page_shows_it_whoever_has_read_meanwhile() {
    let shop = Shop::with_queries_of(Duration::from_millis(100));
    let at = shop.serve().await;
    assert_shows(&get(at, "/products/42").await, KETTLE);
    let reading = async {
        loop {
            get(at, "/products/42").await;
        }
    };
    let changed = tokio::select! {
        changed = put(at, "/products/42", MAKE_BLUE) => changed,
        () = reading => unreachable!("readers never end"),
    };
    assert_shows(&changed, BLUE);
    assert_shows(&get(at, "/products/42").await, BLUE);
}

/// The same where the read is a refresh, for which nobody waits.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_no_refresh_brings_the_old_product_back() {
    let shop = Shop::new();
    let service = Service::start(shop.kv.clone(), shop.database.clone(), settings()).await;
    let at = service.at;
    assert_shows(&get(at, "/products/42").await, KETTLE);
    shop.clock.advance(LATER);
    shop.database.set_replica(Replica::Hangs);
    assert_shows(&get(at, "/products/42").await, KETTLE);
    until("the refresh", async || stat(at, "queries").await == 2).await;

    assert_shows(&put(at, "/products/42", MAKE_BLUE).await, BLUE);
    shop.database.set_replica(Replica::Works);
    assert_shows(&get(at, "/products/42").await, BLUE);
    service.stop().await;
    let kept = shop.kv.get(b"product:42").await.unwrap();
    assert_eq!(kept.as_deref(), Some(BLUE.as_bytes()), "also when the refresh has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_product_is_shown_while_the_database_hangs_and_while_it_fails() {
    let shop = Shop::new();
    let at = shop.serve().await;
    assert_shows(&get(at, "/products/42").await, KETTLE);
    shop.change_behind_its_back().await;
    shop.clock.advance(LATER);

    // Nothing lets the query end, so whoever is answered has not waited for it.
    shop.database.set_replica(Replica::Hangs);
    for page in join_all((0..50).map(|_| get(at, "/products/42"))).await {
        assert_shows(&page, KETTLE);
    }
    until("the refresh", async || stat(at, "queries").await == 2).await;
    shop.database.set_replica(Replica::Fails);
    // The refresh fails, and for ten seconds nobody tries again.
    let cooling = async || {
        let lock = shop.kv.get(b"product:42:lock").await.unwrap();
        lock.is_some_and(|lock| lock.starts_with(b"!"))
    };
    until("the cool-down", cooling).await;
    for page in join_all((0..50).map(|_| get(at, "/products/42"))).await {
        assert_shows(&page, KETTLE);
    }
    assert_eq!(stat(at, "queries").await, 2);

    shop.database.set_replica(Replica::Works);
    let forgotten = send(at, "DELETE", "/products/42/cached", &[], "").await;
    assert_eq!((forgotten.status, &*forgotten.body), (204, ""));
    assert_shows(&get(at, "/products/42").await, BLUE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_product_is_shown_once_more_and_then_the_new_one() {
    let shop = Shop::new();
    let at = shop.serve().await;
    assert_shows(&get(at, "/products/42").await, KETTLE);
    shop.change_behind_its_back().await;
    shop.clock.advance(LATER);
    assert_shows(&get(at, "/products/42").await, KETTLE);
    until("the new product", async || get(at, "/products/42").await.body == BLUE).await;
    assert_eq!(stat(at, "queries").await, 2);
}

/// Where there is nothing to show, a client is told when to come back, and nobody asks the database
/// before that.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_old_product_a_failing_database_is_503() {
    let shop = Shop::new();
    let at = shop.serve().await;
    shop.database.set_replica(Replica::Fails);
    let first = get(at, "/products/42").await;
    first.refused(503);
    assert_eq!(first.header("retry-after"), Some("1"));
    for page in join_all((0..50).map(|_| get(at, "/products/42"))).await {
        page.refused(503);
        let seconds: u64 = page.header("retry-after").expect("Retry-After").parse().unwrap();
        assert!((1..=11).contains(&seconds), "{seconds}");
    }
    assert_eq!(stat(at, "queries").await, 1);

    // A change ends the cool-down.
    shop.database.set_replica(Replica::Works);
    assert_eq!(put(at, "/products/42", MAKE_BLUE).await.status, 200);
    assert_shows(&get(at, "/products/42").await, BLUE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_is_under_way_at_the_end_is_kept() {
    let shop = Shop::new();
    let service = Service::start(shop.kv.clone(), shop.database.clone(), settings()).await;
    let at = service.at;
    assert_shows(&get(at, "/products/42").await, KETTLE);
    shop.change_behind_its_back().await;
    shop.clock.advance(LATER);
    shop.database.set_replica(Replica::Hangs);
    assert_shows(&get(at, "/products/42").await, KETTLE);
    until("the refresh", async || stat(at, "queries").await == 2).await;

    tokio::join!(service.stop(), async { shop.database.set_replica(Replica::Works) });
    assert_eq!(shop.kv.get(b"product:42").await.unwrap().as_deref(), Some(BLUE.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_changes_are_refused_with_a_reason() {
    let shop = Shop::new();
    let at = shop.serve().await;
    assert_shows(&get(at, "/products/42").await, KETTLE);
    let change = |name: &str, price_cents: &str| {
        let name = serde_json::to_string(name).unwrap();
        format!(r#"{{"name":{name},"price_cents":{price_cents}}}"#)
    };
    let deep = "[".repeat(10_000);
    for (body, reason) in [
        ("", "body: EOF"),
        ("null", "expected struct"),
        (&*deep, "body: invalid type"),
        ("{\"name\":\"\u{fffd}", "body: EOF"),
        (r#"{"name":"kettle"}"#, "missing field `price_cents`"),
        (r#"{"price_cents":1}"#, "missing field `name`"),
        (r#"{"id":1,"name":"kettle","price_cents":1}"#, "unknown field `id`"),
        (r#"{"name":"a","name":"b","price_cents":1}"#, "duplicate field `name`"),
        (r#"{"name":7,"price_cents":1}"#, "expected a string"),
        (r#"{"name":null,"price_cents":1}"#, "expected a string"),
        (&change("kettle", "-1"), "invalid value: integer `-1`"),
        (&change("kettle", "1.5"), "expected u64"),
        (&change("kettle", "\"1\""), "expected u64"),
        (&change("kettle", "18446744073709551616"), "expected u64"),
        (&change("kettle", "18446744073709551615"), "price_cents must be from 0 to 100000000"),
        (&change("kettle", "100000001"), "price_cents must be"),
        (&change("", "1"), "name must be 1 to 200 characters"),
        (&change(" \u{a0}", "1"), "name must be"),
        (&change("ket\0tle", "1"), "name must be"),
        (&change("ket\r\ntle", "1"), "name must be"),
        (&change(&"k".repeat(201), "1"), "name must be"),
    ] {
        let message = put(at, "/products/42", body).await.refused(400);
        assert!(message.contains(reason), "{body}: {message}");
    }
    let large = change(&"k".repeat(16 * 1024), "1");
    assert!(put(at, "/products/42", &large).await.refused(413).contains("too long"));
    assert_eq!(put(at, "/products/7", MAKE_BLUE).await.refused(404), "no product 7");
    for id in ["kettle", "-1", "4294967296", "%00"] {
        let answers = [
            put(at, &format!("/products/{id}"), MAKE_BLUE).await,
            send(at, "DELETE", &format!("/products/{id}/cached"), &[], "").await,
        ];
        for answer in answers {
            assert_eq!(answer.refused(400), "the product id must be a number", "{id}");
        }
    }
    assert_shows(&get(at, "/products/42").await, KETTLE);
    assert_eq!(stat(at, "queries").await, 1, "what is refused costs no query");

    let longest = change(&"k\u{e9}".repeat(100), "100000000");
    assert_eq!(put(at, "/products/42", &longest).await.status, 200);
}
