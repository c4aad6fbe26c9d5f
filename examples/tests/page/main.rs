//! The page over HTTP: what it consists of, what it tells, and whom it lets.

#[path = "../common/mod.rs"]
mod common;
mod shop;
mod store;
mod strangers;
mod stream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::events::Events;
use common::{Answer, get, order, send};
use derp_kv_examples::database::Replica;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shop::{ORDER, Shop};

const PAGE: &str = include_str!("../../src/page/index.html");

#[test]
fn the_page_is_one_small_file_without_anything_from_elsewhere() {
    assert!(PAGE.len() < 60 * 1024, "{} bytes", PAGE.len());
    // The name of SVG, which is a name and no address.
    let rest = PAGE.replace("http://www.w3.org/2000/svg", "");
    for foreign in ["http:", "https:", "//cdn", " src=", "@import", "url(", "<iframe", "<object"] {
        assert!(!rest.contains(foreign), "{foreign}");
    }
    // Data is text, and never markup or code.
    for way in
        ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
    {
        assert!(!rest.contains(way), "{way}");
    }
    for inline in [" style=", " onclick=", " onload=", "javascript:"] {
        assert!(!rest.contains(inline), "the policy forbids {inline}");
    }
}

#[tokio::test]
async fn the_page_comes_with_a_policy_that_lets_only_itself_run() {
    let shop = Shop::start().await;
    let page = get(shop.at(), "/").await;
    assert_eq!((page.status, &*page.body), (200, PAGE));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let policy = page.header("content-security-policy").expect("a policy");
    let rules: Vec<_> = policy.split("; ").collect();
    let hash = |element: &str| {
        let begin = PAGE.find(&format!("<{element}>")).expect("its begin") + element.len() + 2;
        let end = PAGE.find(&format!("</{element}>")).expect("its end");
        let hash = STANDARD.encode(Sha256::digest(&PAGE[begin..end]));
        format!("{element}-src 'sha256-{hash}'")
    };
    let expected = [
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        &hash("style"),
        &hash("script"),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ];
    assert_eq!(rules, expected);
}

#[tokio::test]
async fn a_product_says_where_it_comes_from() {
    let shop = Shop::start().await;
    let statuses = async |count| {
        let answers = join_all((0..count).map(|_| get(shop.at(), "/products/42"))).await;
        let status = |answer: &Answer| answer.header("cache-status").expect("it says").to_owned();
        answers.iter().map(status).collect::<Vec<_>>()
    };
    let mut first = statuses(3).await;
    first.sort();
    let collapsed = "derp-kv; fwd=miss; collapsed";
    assert_eq!(first, ["derp-kv; fwd=miss", collapsed, collapsed]);
    assert_eq!(statuses(1).await, ["derp-kv; hit"]);
    shop.replica("fails").await;
    let aged = shop.control("/page/age", &json!({ "product": 42 })).await;
    assert_eq!(aged.json(), json!({ "was_cached": true }));
    let stale = statuses(1).await;
    let past = stale[0].strip_prefix("derp-kv; hit; ttl=-").expect("stale");
    let (seconds, detail) = past.split_once("; detail=").expect("why");
    assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0), "{stale:?}");
    assert_eq!(detail, "refreshing");
    let missing = get(shop.at(), "/products/7").await;
    assert_eq!((missing.status, missing.header("cache-status")), (503, None));
    shop.replica("works").await;
    assert_eq!(send(shop.at(), "DELETE", "/products/7/cached", &[], "").await.status, 204);
    for status in ["derp-kv; fwd=miss", "derp-kv; hit"] {
        let missing = get(shop.at(), "/products/7").await;
        assert_eq!((missing.status, missing.header("cache-status")), (404, Some(status)));
    }
}

#[tokio::test]
async fn a_herd_makes_one_query_and_is_drawn_by_all_who_look() {
    let shop = Shop::start().await;
    let mut events = Events::open(shop.at()).await;
    assert_eq!(get(shop.at(), "/products/42").await.status, 200);
    let outcomes = json!({ "computed": 1, "joined": 199 });
    let done = json!({ "product": 42, "requests": 200, "outcomes": outcomes, "queries": 1 });
    assert_eq!(shop.herd().await, done);
    let begun = events.until("herd", |_| true).await;
    assert_eq!(begun["outcomes"], Value::Null);
    assert_eq!(events.until("herd", |_| true).await, done);

    // While the database fails it is asked once, and nobody gets anything.
    shop.replica("fails").await;
    let outcomes = json!({ "failed": 200 });
    let failed = json!({ "product": 42, "requests": 200, "outcomes": outcomes, "queries": 1 });
    assert_eq!(shop.herd().await, failed);
    let refused = shop.control("/page/herd", &json!({ "product": 7 })).await.refused(400);
    assert_eq!(refused, "product must be one of [42, 1]");

    shop.replica("slow").await;
    let (first, second) = tokio::join!(async { shop.herd().await }, async {
        events.until("product", |product| product["queries"] == 1).await;
        shop.control("/page/herd", &json!({ "product": 1 })).await
    });
    assert_eq!(second.refused(409), "a herd is under way");
    assert_eq!(first["queries"], 1);
}

#[tokio::test]
async fn the_database_is_switched_and_the_shop_stays_open() {
    let shop = Shop::start().await;
    let at = shop.at();
    let mut events = Events::open(at).await;
    assert_eq!(get(at, "/products/42").await.status, 200);
    for replica in ["slow", "fails", "hangs"] {
        shop.replica(replica).await;
        events.until("database", |database| database["replica"] == replica).await;
        // Ends what the last one has left behind.
        shop.database.set_replica(Replica::Works);
        assert_eq!(send(at, "DELETE", "/products/42/cached", &[], "").await.status, 204);
        assert_eq!(get(at, "/products/42").await.header("cache-status"), Some("derp-kv; fwd=miss"));
        shop.replica(replica).await;
        assert_eq!(shop.control("/page/age", &json!({ "product": 42 })).await.status, 200);
        let stale = get(at, "/products/42").await;
        assert_eq!(stale.status, 200, "{replica}: {stale:?}");
        assert!(stale.header("cache-status").unwrap().contains("ttl=-"), "{replica}: {stale:?}");
        if replica == "fails" {
            events.until("refresh_failed", |failed| failed["count"] == 1).await;
        }
    }
    let bad = shop.control("/page/database", &json!({ "replica": "burns" })).await.refused(400);
    assert!(bad.contains("unknown variant"), "{bad}");
    shop.replica("works").await;
    assert_eq!(send(at, "DELETE", "/products/42/cached", &[], "").await.status, 204);
    let nothing = shop.control("/page/age", &json!({ "product": 42 })).await;
    assert_eq!(nothing.json(), json!({ "was_cached": false }));
}

#[tokio::test]
async fn to_ask_for_the_limit_counts_nothing() {
    let shop = Shop::start().await;
    for left in (3..=5).rev() {
        for _ in 0..2 {
            let headers = [("X-User", "ada")];
            let limit = send(shop.at(), "GET", "/page/limit", &headers, "").await.json();
            assert_eq!((&limit["limit"], &limit["remaining"]), (&json!(5), &json!(left)));
            assert_eq!(limit["reset_ms"] == 0, left == 5, "{limit}");
        }
        assert_eq!(order(shop.at(), &format!("k{left}"), ORDER).await.status, 201);
    }
}
