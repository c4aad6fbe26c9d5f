//! Scans whose connection is lost again and again.

mod common;
mod fake;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use common::{connect, ends};
use derp_kv_core::{ErrorKind, KvStore};
use derp_kv_valkey::test_server::{Proxy, Server};
use fake::{CUT, Fake, bulk, greeting};
use futures_util::{StreamExt, TryStreamExt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_that_comes_further_each_time_ends_well() {
    const KEYS: usize = 60_000;
    let server = Server::start().await.unwrap();
    server.command(&["DEBUG", "POPULATE", &KEYS.to_string()]).await.unwrap();
    let proxy = Proxy::start(server.port()).await.unwrap();
    let store = connect(proxy.address()).await;
    let mut scan = store.scan(b"key:");
    let mut seen = HashSet::new();
    let mut yielded = 0;
    while let Some(key) = ends("a key", scan.next()).await {
        seen.insert(key.unwrap());
        yielded += 1;
        // More often than troubles in a row are put up with.
        if yielded % 2500 == 0 {
            proxy.cut_all();
        }
    }
    assert_eq!(seen.len(), KEYS);
    assert!(proxy.connections() > 20, "{} connections", proxy.connections());
}

/// A server that cuts the second page as often as told, and then is the process `then` in place of
/// `first`; and the cursors that it was sent.
async fn cutting(
    cuts: usize,
    first: &'static str,
    then: &'static str,
) -> (Fake, Arc<Mutex<Vec<String>>>) {
    let cursors = Arc::new(Mutex::new(Vec::new()));
    let sent = Arc::clone(&cursors);
    let state = Mutex::new(first);
    let cuts = Mutex::new(cuts);
    let fake = Fake::start(move |request| {
        let answer = greeting(&request, "8.0.1", "standalone").unwrap_or_else(|| {
            match (request[0].as_str(), request.get(1).map(String::as_str)) {
                ("INFO", Some("server")) => match *state.lock().unwrap() {
                    "" => "-NOPERM no permissions\r\n".to_owned(),
                    id => bulk(&format!("# Server\r\nrun_id:{id}\r\n")),
                },
                ("SCAN", Some(cursor)) => {
                    sent.lock().unwrap().push(cursor.to_owned());
                    let page = |next, key| format!("*2\r\n{}*1\r\n{}", bulk(next), bulk(key));
                    let mut left = cuts.lock().unwrap();
                    match cursor {
                        "0" => page("5", "a"),
                        _ if *left > 0 => {
                            *left -= 1;
                            *state.lock().unwrap() = then;
                            CUT.to_owned()
                        }
                        _ => page("0", "b"),
                    }
                }
                _ => "+OK\r\n".to_owned(),
            }
        });
        std::future::ready(answer)
    })
    .await;
    (fake, cursors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_is_used_in_the_process_that_gave_it_and_no_other() {
    for (first, then, expected) in [
        ("one", "one", &["0", "5", "5"][..]),
        // Restarted, or another server behind the same name.
        ("one", "two", &["0", "5", "0", "5"]),
        // Without the right to ask.
        ("", "", &["0", "5", "0", "5"]),
        ("", "two", &["0", "5", "0", "5"]),
    ] {
        let (fake, cursors) = cutting(1, first, then).await;
        let store = connect(fake.address()).await;
        let keys: Vec<_> = ends("scan", store.scan(b"").try_collect()).await.unwrap();
        let keys: HashSet<_> = keys.iter().map(|key| key.as_ref()).collect();
        assert_eq!(keys, HashSet::from([&b"a"[..], b"b"]));
        assert_eq!(*cursors.lock().unwrap(), expected, "{first:?}, then {then:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_that_comes_no_further_ends_with_an_error() {
    for process in ["one", ""] {
        let (fake, cursors) = cutting(usize::MAX, process, process).await;
        let store = connect(fake.address()).await;
        let scan = store.scan(b"").try_collect::<Vec<_>>();
        let error = ends("scan", scan).await.expect_err("it is always cut");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.to_string().contains("came no further"), "{error}");
        assert!(cursors.lock().unwrap().len() < 50, "the work is bounded");
    }
}
