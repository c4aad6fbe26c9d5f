//! What the page tells of the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use derp_kv_core::{
    Error, ErrorKind, Event, Layer, Layered, LinkState, Observer as _, Operation, Result,
};
use derp_kv_examples::config::Config;
use derp_kv_examples::metrics::Metrics;
use derp_kv_examples::page::Page;
use derp_kv_memory::MemoryStore;
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use serde_json::json;

use crate::common::events::Events;
use crate::common::get;
use crate::shop::Shop;

/// On a store of several processes the page sees what another one has done, when somebody looks.
#[tokio::test(flavor = "multi_thread")]
async fn two_services_on_one_server_show_the_same_products() {
    let server = Server::start().await.unwrap();
    let connected = async || {
        let config = ValkeyConfig::default().addresses([server.address()]);
        Arc::new(ValkeyStore::connect(config).await.expect("the server answers"))
    };
    let (one, two) =
        (Shop::on(connected().await, None).await, Shop::on(connected().await, None).await);
    let mut events = Events::open(one.at()).await;
    assert_eq!(get(two.at(), "/products/42").await.status, 200);
    assert_eq!(get(one.at(), "/products/42").await.header("cache-status"), Some("derp-kv; hit"));
    let product = events.until("product", |product| product["id"] == 42).await;
    let left = product["left_ms"].as_i64().expect("it is fresh for a time");
    assert!(product["state"] == "fresh" && (200_000..=300_000).contains(&left), "{product}");
    assert_eq!(one.herd().await["queries"], 1);
    let late = Events::open(two.at()).await.until("snapshot", |_| true).await;
    assert_eq!(late["products"][1]["state"], "fresh", "{late}");
    assert_eq!(late["store"], json!({ "backend": "memory", "up": true }), "as it was named");
}

/// What the store's links tell its observer the page hears without any request, and the metrics hear it too.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_hears_of_a_killed_servers_link() {
    let mut server = Server::start().await.unwrap();
    let (page, metrics) = (Page::new("valkey", None), Metrics::new());
    let text = format!("[kv.valkey]\naddresses = [[\"127.0.0.1\", {}]]\n", server.port());
    let config = Config::from_toml_str(&text).unwrap();
    let kv = config.open_watched(&metrics, Some(&page)).await.expect("the server answers");
    let shop = Shop::with(page, kv).await;
    let mut events = Events::open(shop.at()).await;
    let store = events.until("snapshot", |_| true).await["store"].clone();
    assert_eq!(store, json!({ "backend": "valkey", "up": true }));
    server.kill9();
    let down = json!({ "backend": "valkey", "up": false });
    assert_eq!(events.until("store", |_| true).await, down);
    let lost = format!(
        "derpkv_link_events_total{{node=\"127.0.0.1:{}\",state=\"lost\"}} 1",
        server.port()
    );
    let text = metrics.text();
    assert!(text.contains(&lost), "{text}");
    server.restart().await.unwrap();
    while get(shop.at(), "/products/42").await.status != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(events.until("store", |_| true).await["up"], true);
    let text = metrics.text();
    assert!(text.contains("derpkv_cache_requests_total{outcome=\"computed\"} 1"), "{text}");
}

/// A store that can be switched off.
#[derive(Debug)]
struct Off(Arc<AtomicBool>);

impl Layer for Off {
    async fn around<T: Send>(
        &self,
        _: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "switched off"));
        }
        call.await
    }
}

#[tokio::test]
async fn the_page_tells_when_the_store_is_down() {
    let off = Arc::new(AtomicBool::new(false));
    let kv = Layered::new(MemoryStore::new(), Off(off.clone()));
    let shop = Shop::on(Arc::new(kv), None).await;
    let mut events = Events::open(shop.at()).await;
    assert_eq!(get(shop.at(), "/products/42").await.status, 200);
    off.store(true, Ordering::Relaxed);
    assert_eq!(get(shop.at(), "/products/42").await.status, 503);
    let down = json!({ "backend": "memory", "up": false });
    assert_eq!(events.until("store", |_| true).await, down);
    let late = Events::open(shop.at()).await.until("snapshot", |_| true).await;
    assert_eq!(late["store"], down, "also to who comes now");
    off.store(false, Ordering::Relaxed);
    assert_eq!(get(shop.at(), "/products/42").await.status, 200);
    let up = json!({ "backend": "memory", "up": true });
    assert_eq!(events.until("store", |_| true).await, up);

    // A lost link tells it before any call does.
    let links = shop.page.links();
    links.event(Event::link("a:1", LinkState::Lost));
    links.event(Event::link("b:1", LinkState::Lost));
    links.event(Event::link("a:1", LinkState::FailingFast));
    links.event(Event::link("a:1", LinkState::back(Duration::from_secs(1))));
    assert_eq!(events.until("store", |_| true).await, down);
    links.event(Event::topology_changed(1));
    assert_eq!(events.until("store", |_| true).await, up);
}
