//! How often a client asks for the cluster's map, and connects, while it waits for better times.

mod common;

use std::time::{Duration, Instant};

use common::{connect_cluster, ends, recovers};
use derp_kv_core::KvStore;
use derp_kv_valkey::ValkeyStore;
use derp_kv_valkey::test_server::{Cluster, Server};
use tokio::task::JoinSet;

const SHORT: Duration = Duration::from_millis(500);
const OUTAGE: Duration = Duration::from_secs(6);

/// 64 callers of this key, through the whole outage.
async fn call_through(store: &ValkeyStore, key: &str) -> f64 {
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let (store, key) = (store.clone(), key.to_owned());
        callers.spawn(async move {
            while start.elapsed() < OUTAGE {
                ends("get", store.get(key.as_bytes())).await.expect_err("nobody serves");
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("ends");
    }
    start.elapsed().as_secs_f64()
}

async fn maps_asked_of(server: &Server) -> u64 {
    let stats = server.command(&["INFO", "commandstats"]).await.expect("stats");
    let calls = stats.text().expect("text").lines().find_map(|line| {
        line.strip_prefix("cmdstat_cluster|slots:calls=")?.split(',').next()?.parse().ok()
    });
    calls.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_primary_does_not_flood_the_survivors() {
    let mut cluster = Cluster::builder(3, 0)
        .option("cluster-require-full-coverage", "no")
        .node_timeout(Duration::from_secs(60))
        .start()
        .await
        .expect("cluster");
    let key = cluster.key_owned_by(0).await.expect("key");
    let store = connect_cluster(cluster.addresses(), SHORT).await;
    store.set(key.as_bytes(), b"v", None).await.expect("set");
    let before = maps_asked_of(cluster.node(1)).await;
    cluster.node_mut(0).kill9();
    let took = call_through(&store, &key).await;
    let asked = maps_asked_of(cluster.node(1)).await - before;
    println!("\nrefreshes | one of three primaries dead | {:.1} a second", asked as f64 / took);
    // Some at first, then one a second.
    assert!(asked >= 2 && asked as f64 <= 8.0 + took, "{asked} maps in {took} s");
    cluster.node_mut(0).restart().await.expect("restart");
    recovers(async || store.get(key.as_bytes()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_down_is_not_flooded_with_connections() {
    let mut cluster = Cluster::start(3, 0).await.expect("cluster");
    let key = cluster.key_owned_by(0).await.expect("key");
    let mut seeds = cluster.addresses();
    let store = connect_cluster(seeds.split_off(2), SHORT).await;
    store.set(key.as_bytes(), b"v", None).await.expect("set");
    for number in 0..3 {
        cluster.node_mut(number).kill9();
    }
    // What listens at the seed's address takes every connection and closes it.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", cluster.node(2).port())).await;
    let listener = listener.expect("the port is free");
    let mut accepted = 0_u64;
    let took = tokio::select! {
        took = call_through(&store, &key) => took,
        () = async { loop { accepted += u64::from(listener.accept().await.is_ok()); } } => 0.0,
    };
    println!("\nrefreshes | all down | {:.1} connections a second", accepted as f64 / took);
    // The link to the node itself tries as often again, and up to twice a second.
    assert!(accepted as f64 <= 2.0 * 8.0 + 3.0 * took, "{accepted} connections in {took} s");
    drop(listener);
    for number in 0..3 {
        cluster.node_mut(number).restart().await.expect("restart");
    }
    recovers(async || store.set(key.as_bytes(), b"v", None).await).await;
}
