//! Where a node sends a call to.

mod common;
mod fake;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use common::{connect_cluster, ends};
use derp_kv_core::KvStore;
use fake::{Fake, greeting};
use tokio::sync::watch;

const VERSION: &str = "8.0.1";

/// The new node has no slot yet, so that every fresh map leaves it out, and some of those come
/// while it greets.
#[tokio::test]
async fn a_slow_node_that_owns_nothing_yet_is_asked_in_the_end() {
    let maps = watch::Sender::new(0_u64);
    let seen = maps.clone();
    let new = Fake::start(move |request| {
        let mut seen = seen.subscribe();
        async move {
            if request[0] == "HELLO" {
                let enough = *seen.borrow() + 1;
                let _ = seen.wait_for(|seen| *seen >= enough).await;
            }
            greeting(&request, VERSION, "cluster").unwrap_or_else(|| match request[0].as_str() {
                "GET" => "$1\r\nv\r\n".to_owned(),
                _ => "+OK\r\n".to_owned(),
            })
        }
    })
    .await;
    let (own, asked) = (Arc::new(OnceLock::new()), new.port());
    let port = Arc::clone(&own);
    let old = Fake::start(move |request| {
        let (port, maps) = (Arc::clone(&port), maps.clone());
        async move {
            greeting(&request, VERSION, "cluster").unwrap_or_else(|| {
                if request[0] != "CLUSTER" {
                    return format!("-ASK 0 127.0.0.1:{asked}\r\n");
                }
                maps.send_modify(|maps| *maps += 1);
                let port: u16 = *port.get().expect("known");
                format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
            })
        }
    })
    .await;
    own.set(old.port()).expect("once");
    let store = connect_cluster(vec![old.address()], Duration::from_secs(5)).await;
    let value = ends("get", store.get(b"k")).await.expect("asked");
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    assert_eq!(new.connections(), 1, "nothing was given up on the way");
}
