//! Whom the page lets.

use std::net::SocketAddr;
use std::sync::Arc;

use derp_kv_memory::MemoryStore;

use crate::common::program::Program;
use crate::common::{self, get, send, settings};
use crate::shop::{JSON, Shop};

#[tokio::test]
async fn strangers_are_refused() {
    let shop = Shop::on(Arc::new(MemoryStore::new()), Some("shop.example")).await;
    let at = shop.at();
    let raw = async |host: &str, method: &str, path: &str, headers: &[(&str, &str)]| {
        let body = r#"{"replica":"fails"}"#;
        common::send_as(at, host, method, path, headers, body).await
    };
    let own = at.to_string();
    let port = at.port();
    for path in ["/", "/page/events", "/page/limit"] {
        for host in
            ["evil.example", &format!("127.0.0.1.evil.example:{port}"), "shop.example:1", ""]
        {
            raw(host, "GET", path, &[]).await.refused(421);
        }
    }
    let evil = &format!("http://evil.example:{port}");
    for headers in [
        &[("Origin", &**evil)][..],
        &[("Origin", "null")],
        &[("Origin", "http://localhost")],
        &[("Origin", "http://127.0.0.1:1")],
        &[("Origin", &format!("http://{own}")), ("Origin", evil)],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")],
    ] {
        let headers = [&[JSON], headers].concat();
        let refused = raw(&own, "POST", "/page/database", &headers).await.refused(403);
        assert_eq!(refused, "only the page itself may ask for this", "{headers:?}");
        if !headers.contains(&("Sec-Fetch-Mode", "navigate")) {
            raw(&own, "GET", "/page/events", &headers).await.refused(403);
        }
    }
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let headers: Vec<_> = kind.map(|kind| ("Content-Type", kind)).into_iter().collect();
        raw(&own, "POST", "/page/database", &headers).await.refused(415);
    }
    raw("evil.example", "POST", "/page/herd", &[JSON]).await.refused(421);
    let limit = get(at, "/page/limit").await;
    assert_eq!(limit.status, 200);
    assert_eq!(get(at, "/products/42").await.status, 200, "the database works as before");

    // The page itself, by a link from elsewhere, and under the name that it was given.
    let origin = format!("http://{own}");
    let same = [JSON, ("Origin", &*origin), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(raw(&own, "POST", "/page/database", &same).await.status, 204);
    let link = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")];
    assert_eq!(raw(&own, "GET", "/", &link).await.status, 200);
    let named = [JSON, ("Origin", "https://SHOP.example")];
    assert_eq!(raw("shop.example", "POST", "/page/database", &named).await.status, 204);
    assert_eq!(raw(&format!("localhost:{port}"), "GET", "/", &[]).await.status, 200);
}

#[tokio::test]
async fn without_the_page_there_is_nothing_of_it() {
    let at = common::serve(Arc::new(MemoryStore::new()), settings()).await;
    for path in ["/", "/page/events", "/page/limit"] {
        assert_eq!(get(at, path).await.refused(404), "there is nothing at this path");
    }
    for path in ["/page/database", "/page/herd", "/page/age"] {
        send(at, "POST", path, &[JSON], r#"{"replica":"fails"}"#).await.refused(404);
    }
}

#[test]
fn the_program_has_the_page_where_only_this_machine_can_call_it() {
    let status = |arguments: &[&str], host: Option<&str>| {
        let arguments: Vec<_> = arguments.iter().map(std::convert::AsRef::as_ref).collect();
        let running = Program::start(&arguments);
        let at: SocketAddr = running.url.strip_prefix("http://").unwrap().parse().unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], at.port()));
        let host = host.map_or(at.to_string(), str::to_owned);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(common::send_as(at, &host, "GET", "/", &[], "")).status
    };
    assert_eq!(status(&[], None), 200);
    assert_eq!(status(&["--page", "off"], None), 404);
    assert_eq!(status(&["--trusted-proxies", "1"], None), 404);
    assert_eq!(status(&["--listen", "0.0.0.0:0"], None), 404);
    let named = ["--listen", "0.0.0.0:0", "--page", "shop.example"];
    assert_eq!(status(&named, Some("shop.example")), 200);
    assert_eq!(status(&named, Some("evil.example")), 421);
}
