//! Maps of a cluster in which a row cannot be used, and redirects that lead nowhere.

mod common;
mod fake;

use std::time::Duration;

use common::{connect_cluster, ends};
use derp_kv_core::{ErrorKind, KvStore};
use derp_kv_valkey::test_server::Cluster;
use fake::{Fake, bulk, greeting, slots};

const SHORT: Duration = Duration::from_secs(2);

/// A node that answers `GET` with what `get` makes of its port, and whose map `map` makes of it.
async fn node(
    get: impl Fn(u16) -> String + Send + Sync + 'static,
    map: impl Fn(u16) -> String + Send + Sync + 'static,
) -> Fake {
    Fake::with_port(move |port, request| {
        let answer = greeting(&request, "8.0.1", "cluster").unwrap_or_else(|| {
            match (request[0].as_str(), request.get(1).map(String::as_str)) {
                ("CLUSTER", Some("MYID")) => bulk("aaa"),
                ("CLUSTER", Some("SLOTS")) => map(port),
                ("GET", _) => get(port),
                _ => "+OK\r\n".to_owned(),
            }
        });
        std::future::ready(answer)
    })
    .await
}

fn served(_: u16) -> String {
    bulk("v")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_cannot_be_used_leave_the_others_alone() {
    let rows = |port| {
        slots(&[
            (0, 99, "127.0.0.1", port, "aaa"),
            (100, 199, "127.0.0.1", 0, "bbb"),
            (200, 299, "?", port, "ccc"),
            (300, 399, "127.0.0.1", port, "aaa"),
            (350, 399, "127.0.0.2", port, "ddd"),
            (17_000, 17_001, "127.0.0.1", port, "aaa"),
        ])
    };
    let fake = node(served, rows).await;
    let store = connect_cluster(vec![fake.address()], SHORT).await;
    for slot in [0, 99, 300, 349] {
        let value = ends("get", store.get(Cluster::key_in(slot).as_bytes())).await;
        assert!(value.expect("a good row").is_some());
    }
    for (slot, reason) in [
        (150, "its node announces no port"),
        (250, "its node announces no host"),
        (360, "several rows of CLUSTER SLOTS claim it"),
        (400, "no row of CLUSTER SLOTS names it"),
    ] {
        let (bad, good) = (Cluster::key_in(slot), Cluster::key_in(0));
        let message = format!("no node serves slot {slot}: {reason}");
        let error = ends("get", store.get(bad.as_bytes())).await.expect_err(reason);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.to_string().contains(&message), "{error}");
        let keys = [good.as_bytes(), bad.as_bytes()];
        let error = ends("mget", store.mget(&keys)).await.expect_err(reason);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.to_string().contains(&message), "{error}");
    }
}

#[tokio::test]
async fn a_map_without_one_usable_row_says_why() {
    let fake = node(served, |_| slots(&[(0, 16383, "127.0.0.1", 0, "aaa")])).await;
    let config = derp_kv_valkey::ValkeyConfig::default().addresses([fake.address()]);
    let config = config.mode(derp_kv_valkey::Mode::Cluster);
    let error = derp_kv_valkey::ValkeyStore::connect(config).await.expect_err("nobody serves");
    assert!(
        error.to_string().contains("no node serves slot 0: its node announces no port"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_host_is_taken_from_the_metadata() {
    let row = |port: u16| {
        let (host, id) = (bulk("?"), bulk("aaa"));
        let metadata = format!("*2\r\n{}{}", bulk("ip"), bulk("127.0.0.1"));
        format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n{host}:{port}\r\n{id}{metadata}")
    };
    let fake = node(served, row).await;
    // As `localhost`: the host of the map is another one.
    let store = connect_cluster(vec![("localhost".to_owned(), fake.port())], SHORT).await;
    assert!(ends("get", store.get(b"k")).await.expect("its address is known").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_that_leads_nowhere_says_where() {
    let map = |port| slots(&[(0, 16383, "127.0.0.1", port, "aaa")]);
    for (redirect, named) in [
        ("MOVED 7 ?:7001", "MOVED 7 ?:7001"),
        ("ASK 7 ?:7001", "ASK 7 ?:7001"),
        ("MOVED 7 127.0.0.1:1", "127.0.0.1:1: cannot connect"),
        ("ASK 7 127.0.0.1:1", "127.0.0.1:1: cannot connect"),
    ] {
        let fake = node(move |_| format!("-{redirect}\r\n"), map).await;
        let store = connect_cluster(vec![fake.address()], SHORT).await;
        let error = ends("get", store.get(b"k")).await.expect_err("nowhere");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.to_string().contains(named), "{redirect}: {error}");
    }
}
