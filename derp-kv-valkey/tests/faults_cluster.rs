//! Faults of a cluster: failover, migration, frozen and dead shards.

mod common;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use common::{Load, connect_cluster, ends, recovers, report_row, stored};
use derp_kv_core::KvStore;
use derp_kv_valkey::ValkeyStore;
use derp_kv_valkey::test_server::{Cluster, slot_of};
use futures_util::TryStreamExt;
use tokio::task::JoinSet;

const PATIENT: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_secs(2);
/// The view of a cluster is refreshed after so long although nothing puts it in doubt.
const REFRESHED_BY_THE_CLOCK: Duration = Duration::from_secs(30);

async fn keys_of_all(cluster: &Cluster, primaries: usize) -> Vec<String> {
    let mut keys = Vec::new();
    for number in 0..primaries {
        keys.push(cluster.key_owned_by(number).await.expect("key"));
    }
    keys
}

/// Writes keys that stay, spread over all slots.
async fn fill(store: &ValkeyStore, count: usize) -> HashSet<Vec<u8>> {
    let keys: Vec<Vec<u8>> = (0..count).map(|n| format!("stay:{n}").into_bytes()).collect();
    let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b"v"[..])).collect();
    store.mset(&items, None).await.expect("mset");
    keys.into_iter().collect()
}

async fn scanned(store: &ValkeyStore) -> Result<HashSet<Vec<u8>>, derp_kv_core::Error> {
    let found: Vec<_> = store.scan(b"stay:").try_collect().await?;
    Ok(found.into_iter().map(|key| key.to_vec()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_under_increments_scans_and_waiters() {
    let mut cluster =
        Cluster::builder(3, 1).node_timeout(Duration::from_secs(1)).start().await.expect("cluster");
    let keys = keys_of_all(&cluster, 3).await;
    let store = connect_cluster(cluster.addresses(), PATIENT).await;
    let stay = fill(&store, 3000).await;
    let waited = format!("{{{}}}:waited", keys[0]);
    store.set(waited.as_bytes(), b"old", None).await.expect("set");
    // The replica has it all before the primary dies.
    cluster.node(0).command(&["WAIT", "1", "20000"]).await.expect("replicated");
    let mut waiters = JoinSet::new();
    for _ in 0..20 {
        let (store, key) = (store.clone(), waited.clone());
        waiters.spawn(async move {
            loop {
                let Ok(seen) = ends("get", store.get(key.as_bytes())).await else { continue };
                if seen.as_deref() == Some(b"new") {
                    break;
                }
                let wait = store.wait_for_change(key.as_bytes(), seen.as_deref(), PATIENT);
                ends("a waiter", wait).await;
            }
        });
    }
    let load = Load::start(&store, &keys, 4);
    recovers(async || store.get(keys[0].as_bytes()).await).await;
    let scan = {
        let store = store.clone();
        tokio::spawn(async move { ends("scan", scanned(&store)).await })
    };
    cluster.node_mut(0).kill9();
    let start = Instant::now();
    let new = cluster.wait_for_new_owner(slot_of(keys[0].as_bytes()), 0).await.expect("failover");
    recovers(async || store.set(waited.as_bytes(), b"new", None).await).await;
    let back = start.elapsed();
    while let Some(waiter) = waiters.join_next().await {
        waiter.expect("woken");
    }
    match scan.await.expect("scan") {
        Ok(found) => assert_eq!(found, stay, "a scan is whole or fails"),
        Err(error) => assert!(error.is_transient(), "{error:?}"),
    }
    assert_eq!(recovers(async || scanned(&store).await).await.0, stay);
    let mut saw = String::new();
    for (number, (key, tally)) in keys.iter().zip(load.stop().await).enumerate() {
        tally.check(stored(&store, key).await);
        assert!(tally.ok > 0);
        if number > 0 {
            assert_eq!((tally.unknown, tally.failed), (0, 0), "a healthy shard: {tally}");
        } else {
            saw = tally.to_string();
        }
    }
    assert_eq!(new, 3);
    report_row("13", "failover (kill -9 of a primary)", saw, back, "nothing, nothing twice");
    report_row("18", "scan through a failover", "whole", back, "nothing");
    report_row("19", "waiters through a failover", "20 of 20 woken", back, "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_primary_and_a_moved_slot() {
    let mut cluster = Cluster::builder(3, 0)
        .node_timeout(Duration::from_secs(30))
        .start()
        .await
        .expect("cluster");
    let keys = keys_of_all(&cluster, 3).await;
    let store = connect_cluster(cluster.addresses(), SHORT).await;
    for key in &keys {
        store.incr(key.as_bytes(), 1, None).await.expect("incr");
    }
    let healthy = Load::start(&store, &keys[1..], 4);
    cluster.node_mut(0).freeze().expect("freeze");
    let slot = slot_of(keys[1].as_bytes());
    let hung = {
        let (store, key) = (store.clone(), keys[0].clone());
        tokio::spawn(async move { ends("incr", store.incr(key.as_bytes(), 1, None)).await })
    };
    // The frozen node is not told of it.
    cluster.move_slot(slot, 2).await.expect("moved");
    let unknown = hung.await.expect("ends").expect_err("frozen");
    assert!(ends("get", store.get(keys[1].as_bytes())).await.expect("moved").is_some());
    let mut saw = String::new();
    let tallies = healthy.stop().await;
    for (key, mut tally) in keys[1..].iter().zip(tallies) {
        assert_eq!((tally.unknown, tally.failed), (0, 0), "a healthy shard: {tally}");
        tally.ok += 1;
        assert_eq!(stored(&store, key).await, tally.ok);
        saw = format!("frozen shard {:?}; healthy {tally}", unknown.kind());
    }
    cluster.node_mut(0).thaw().expect("thaw");
    let (_, back) = recovers(async || store.get(keys[0].as_bytes()).await).await;
    let counted = stored(&store, &keys[0]).await;
    assert!(counted == 1 || (counted == 2 && unknown.may_have_applied()));
    report_row("14", "hung primary, a slot moved elsewhere", saw, back, "nothing, nothing twice");
}

/// The frozen node says nothing of its successor, and under steady calls it seems to be busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_primary_with_a_promoted_replica() {
    let mut cluster =
        Cluster::builder(3, 1).node_timeout(Duration::from_secs(1)).start().await.expect("cluster");
    let key = cluster.key_owned_by(0).await.expect("key");
    let store = connect_cluster(cluster.addresses(), SHORT).await;
    store.set(key.as_bytes(), b"v", None).await.expect("set");
    cluster.node(0).command(&["WAIT", "1", "20000"]).await.expect("replicated");
    cluster.node_mut(0).freeze().expect("freeze");
    let mut calls = JoinSet::new();
    for number in 0..10_u32 {
        let (store, key) = (store.clone(), key.clone());
        calls.spawn(async move {
            tokio::time::sleep(SHORT / 10 * number).await;
            loop {
                // A call fails at once when the node has been silent for a whole deadline: calls
                // without a pause would keep the servers themselves from the processor.
                if ends("get", store.get(key.as_bytes())).await.is_err() {
                    tokio::time::sleep(SHORT / 100).await;
                }
            }
        });
    }
    let slot = slot_of(key.as_bytes());
    assert_eq!(cluster.wait_for_new_owner(slot, 0).await.expect("failover"), 3);
    let start = Instant::now();
    let mut failed = 0;
    while let Err(error) = ends("get", store.get(key.as_bytes())).await {
        failed += 1;
        // Later than this, it would be the clock that refreshes the map, and no call.
        assert!(start.elapsed() < REFRESHED_BY_THE_CLOCK, "the new owner is not found: {error:?}");
        tokio::time::sleep(SHORT / 100).await;
    }
    let saw = format!("{failed} more calls failed");
    report_row("14", "hung primary, its replica promoted", saw, start.elapsed(), "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_key_by_key() {
    let cluster = Cluster::start(3, 0).await.expect("cluster");
    let store = connect_cluster(cluster.addresses(), PATIENT).await;
    let keys: Vec<String> = (0..10).map(Cluster::key_in).collect();
    let stay = fill(&store, 3000).await;
    let load = Load::start(&store, &keys, 2);
    let start = Instant::now();
    let mut scans = 0;
    for slot in 0..10 {
        // A scan beside each move is whole.
        let (moved, found) = tokio::join!(cluster.move_slot(slot, 1), scanned(&store));
        moved.expect("moved");
        assert_eq!(found.expect("scan"), stay);
        scans += 1;
    }
    let took = start.elapsed();
    let (mut ok, mut unhappy) = (0, 0);
    for (key, tally) in keys.iter().zip(load.stop().await) {
        assert_eq!(stored(&store, key).await, tally.ok, "{tally}");
        ok += tally.ok;
        unhappy += tally.unknown + tally.failed;
    }
    assert!(ok > 0 && unhappy == 0, "{unhappy} errors");
    report_row(
        "15",
        "slots moved key by key",
        format!("{ok} ok, 0 errors, exact"),
        took,
        "nothing",
    );
    report_row(
        "18",
        "scan beside moving slots",
        format!("{scans} scans, 0 missing"),
        took,
        "nothing",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_at_once() {
    let cluster = Cluster::start(3, 0).await.expect("cluster");
    let store = connect_cluster(cluster.addresses(), PATIENT).await;
    let keys: Vec<String> = (0..10).map(Cluster::key_in).collect();
    let load = Load::start(&store, &keys, 2);
    let start = Instant::now();
    // Only Valkey 9 has such a command: elsewhere slots of the range go one by one.
    let atomic = cluster.node(0).knows("CLUSTER|MIGRATESLOTS").await.expect("asked");
    if atomic {
        cluster.migrate_slots(0, 3000, 1).await.expect("moved");
    } else {
        for slot in 0..40 {
            cluster.move_slot(slot, 1).await.expect("moved");
        }
    }
    let took = start.elapsed();
    let (mut ok, mut unhappy) = (0, 0);
    for (key, tally) in keys.iter().zip(load.stop().await) {
        assert_eq!(stored(&store, key).await, tally.ok, "{tally}");
        ok += tally.ok;
        unhappy += tally.unknown + tally.failed;
    }
    assert!(ok > 0 && unhappy == 0, "{unhappy} errors");
    let how = if atomic { "CLUSTER MIGRATESLOTS, 3001 slots" } else { "40 slots, one by one" };
    report_row("15", how, format!("{ok} ok, 0 errors, exact"), took, "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_shard_without_replica() {
    let mut cluster = Cluster::builder(3, 0)
        .option("cluster-require-full-coverage", "no")
        .node_timeout(Duration::from_secs(1))
        .start()
        .await
        .expect("cluster");
    let keys = keys_of_all(&cluster, 3).await;
    let store = connect_cluster(cluster.addresses(), SHORT).await;
    let names: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    let items: Vec<(&[u8], &[u8])> = names.iter().map(|key| (*key, &b"v"[..])).collect();
    store.mset(&items, None).await.expect("mset");
    cluster.node_mut(0).kill9();
    // Never a success that leaves a shard out.
    ends("mset", store.mset(&items, None)).await.expect_err("a shard is missing");
    ends("mget", store.mget(&names)).await.expect_err("a shard is missing");
    ends("scan", store.scan(b"").try_collect::<Vec<_>>()).await.expect_err("a shard is missing");
    let error =
        ends("delete_many", store.delete_many(&names)).await.expect_err("a shard is missing");
    assert!(error.may_have_applied(), "the living shards have deleted: {error:?}");
    for key in &names[1..] {
        ends("set", store.set(key, b"again", None)).await.expect("a healthy shard");
    }
    cluster.node_mut(0).restart().await.expect("restart");
    let (_, back) = recovers(async || store.mset(&items, None).await).await;
    assert_eq!(store.delete_many(&names).await.expect("delete"), 3);
    report_row(
        "16",
        "shard dead, no replica",
        format!("mset, mget, scan, delete_many: error; {:?}", error.kind()),
        back,
        "what the dead node had in memory",
    );
}
