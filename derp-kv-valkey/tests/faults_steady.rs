//! Faults while callers go on asking: there is always traffic, in one direction.

mod common;

use std::time::{Duration, Instant};

use common::{connect, ends, recovers, report_row};
use derp_kv_core::KvStore;
use derp_kv_valkey::ValkeyStore;
use derp_kv_valkey::test_server::{Proxy, Server, Traffic};
use tokio::task::JoinSet;

async fn behind_proxy() -> (Server, Proxy, ValkeyStore) {
    let server = Server::start().await.expect("server");
    let proxy = Proxy::start(server.port()).await.expect("proxy");
    let store = connect(proxy.address()).await;
    store.set(b"k", b"v", None).await.expect("set");
    (server, proxy, store)
}

/// Calls that begin ten times a second, whatever becomes of them.
fn steady_calls(store: &ValkeyStore) -> JoinSet<()> {
    let store = store.clone();
    let mut calls = JoinSet::new();
    calls.spawn(async move {
        let mut under_way = JoinSet::new();
        loop {
            let store = store.clone();
            under_way.spawn(async move { store.get(b"k").await });
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_under_steady_calls() {
    let (_server, proxy, store) = behind_proxy().await;
    let (connections, requests) = (proxy.connections(), proxy.requests());
    let start = Instant::now();
    proxy.set(Traffic::HoleBoth);
    let _calls = steady_calls(&store);
    // One has been swallowed: this connection never carries another byte.
    proxy.wait_for_requests(requests + 1).await;
    proxy.set(Traffic::Pass);
    ends("the old connection", proxy.wait_for_connections(connections + 1)).await;
    let (value, _) = recovers(async || store.get(b"k").await).await;
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    report_row("4", "black hole under steady calls", "replaced", start.elapsed(), "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_under_steady_calls() {
    let (mut server, proxy, store) = behind_proxy().await;
    let connections = proxy.connections();
    server.freeze().expect("freeze");
    let start = Instant::now();
    let calls = steady_calls(&store);
    ends("the doubt", proxy.wait_for_connections(connections + 1)).await;
    server.thaw().expect("thaw");
    drop(calls);
    let (value, _) = recovers(async || store.get(b"k").await).await;
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    report_row("3", "hang under steady calls", "noticed", start.elapsed(), "nothing");
}
