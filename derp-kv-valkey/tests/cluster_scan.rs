//! A scan sees every key that stays, whatever happens to the slots in its middle.

mod fake;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{KvStore, Result};
use derp_kv_valkey::test_server::{Cluster, Reply, slot_of};
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use fake::{Fake, bulk, greeting, slots};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

const KEYS: usize = 4000;

async fn connect(cluster: &Cluster) -> ValkeyStore {
    let config = ValkeyConfig::default().addresses(cluster.addresses()).mode(Mode::Cluster);
    ValkeyStore::connect(config.op_timeout(Duration::from_secs(60))).await.unwrap()
}

async fn fill(kv: &ValkeyStore, prefix: &str) -> HashSet<Bytes> {
    let keys: Vec<_> = (0..KEYS).map(|number| format!("{prefix}{number}")).collect();
    let items: Vec<_> = keys.iter().map(|key| (key.as_bytes(), &b"v"[..])).collect();
    kv.mset(&items, None).await.unwrap();
    keys.into_iter().map(Bytes::from).collect()
}

async fn drain(seen: &mut HashSet<Bytes>, scan: BoxStream<'static, Result<Bytes>>) {
    seen.extend(scan.try_collect::<Vec<_>>().await.unwrap());
}

/// Moves all keys of a slot, and leaves the slot open.
async fn move_keys(cluster: &Cluster, slot: u16, from: usize, to: usize) {
    let port = cluster.node(to).port().to_string();
    loop {
        let get = ["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "500"];
        let keys = cluster.node(from).command(&get).await.unwrap();
        let keys = keys.array().unwrap();
        if keys.is_empty() {
            break;
        }
        let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "60000", "KEYS"];
        let mut command: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        command.extend(keys.iter().filter_map(|key| match key {
            Reply::Bytes(key) => Some(key.clone()),
            _ => None,
        }));
        cluster.node(from).command(&command).await.unwrap();
    }
}

#[tokio::test]
async fn keys_that_have_gone_ahead_to_the_next_owner() {
    let cluster = Cluster::start(3, 0).await.unwrap();
    let kv = connect(&cluster).await;
    let all = fill(&kv, "{tag}:").await;
    let slot = slot_of(b"tag");
    let from = cluster.owner_of(slot).await.unwrap();
    let to = (from + 1) % 3;

    let mut scan = kv.scan(b"{tag}");
    let mut seen = HashSet::from([scan.next().await.unwrap().unwrap()]);
    cluster.begin_move(slot, to).await.unwrap();
    move_keys(&cluster, slot, from, to).await;
    drain(&mut seen, scan).await;
    assert_eq!(seen.len(), all.len(), "of the keys that were there all along");
    assert_eq!(seen, all);
}

#[tokio::test]
async fn a_slot_that_moves() {
    let cluster = Cluster::start(3, 0).await.unwrap();
    let kv = connect(&cluster).await;
    let all = fill(&kv, "{tag}:").await;
    let slot = slot_of(b"tag");
    let to = (cluster.owner_of(slot).await.unwrap() + 1) % 3;

    let mut scan = kv.scan(b"{tag}");
    let mut seen = HashSet::from([scan.next().await.unwrap().unwrap()]);
    cluster.move_slot(slot, to).await.unwrap();
    drain(&mut seen, scan).await;
    assert_eq!(seen, all);
}

#[tokio::test]
async fn slots_that_move_to_a_node_that_was_scanned_before() {
    let cluster = Cluster::start(3, 0).await.unwrap();
    let kv = connect(&cluster).await;
    let all = fill(&kv, "key:").await;

    let mut scan = kv.scan(b"key:");
    let mut seen = HashSet::new();
    // The first node is done when a key of another one is seen.
    while let Some(key) = scan.next().await {
        let key = key.unwrap();
        let owner = cluster.owner_of(slot_of(&key)).await.unwrap();
        seen.insert(key);
        if owner != 0 {
            break;
        }
    }
    let last = cluster.owner_of(16383).await.unwrap();
    assert_ne!(last, 0);
    for slot in (16384 - 20)..16384 {
        cluster.move_slot(slot, 0).await.unwrap();
    }
    drain(&mut seen, scan).await;
    assert_eq!(seen, all);
}

#[tokio::test]
async fn a_slot_that_arrives_behind_the_cursor() {
    const SLOT: u16 = 100;
    let cluster = Cluster::start(3, 0).await.unwrap();
    assert_eq!(cluster.owner_of(SLOT).await.unwrap(), 0);
    cluster.move_slot(SLOT, 1).await.unwrap();
    let kv = connect(&cluster).await;
    let mut all = fill(&kv, "key:").await;
    let late = Bytes::from(Cluster::key_in(SLOT));
    kv.set(&late, b"v", None).await.unwrap();
    all.insert(late);

    // A page is a thousand keys, slot by slot: the first one leads far beyond.
    let mut scan = kv.scan(b"key:");
    let mut seen = HashSet::from([scan.next().await.unwrap().unwrap()]);
    cluster.move_slot(SLOT, 0).await.unwrap();
    drain(&mut seen, scan).await;
    assert_eq!(seen, all);
}

#[tokio::test]
async fn a_primary_that_dies() {
    let mut cluster = Cluster::start(3, 1).await.unwrap();
    let kv = connect(&cluster).await;
    let all = fill(&kv, "key:").await;
    for number in 0..3 {
        let wait = cluster.node(number).command(&["WAIT", "1", "0"]).await.unwrap();
        assert_eq!(wait.int().unwrap(), 1);
    }
    let dying = cluster.owner_of(0).await.unwrap();

    let mut scan = kv.scan(b"key:");
    let mut seen = HashSet::from([scan.next().await.unwrap().unwrap()]);
    cluster.node_mut(dying).kill9();
    drain(&mut seen, scan).await;
    assert_eq!(seen, all);
}

/// A node of a cluster that clients reach by other addresses than the nodes have: only the map
/// tells those. All slots are the first one's; one is on its way to the second.
async fn node_behind_nat(id: &'static str, ports: Arc<OnceLock<[u16; 2]>>) -> Fake {
    let slot = slot_of(b"tag");
    Fake::start(move |request| {
        let answer = greeting(&request, "8.0.1", "cluster").unwrap_or_else(|| {
            let [first, second] = *ports.get().expect("known");
            match (request[0].as_str(), request.get(1).map(String::as_str)) {
                ("CLUSTER", Some("MYID")) => bulk(id),
                ("CLUSTER", Some("SLOTS")) => slots(&[
                    (0, 16382, "127.0.0.1", first, "aaa"),
                    (16383, 16383, "127.0.0.1", second, "bbb"),
                ]),
                ("CLUSTER", Some("NODES")) => {
                    let flags = |of| if of == id { "myself,master" } else { "master" };
                    let (first, second) = (flags("aaa"), flags("bbb"));
                    bulk(&format!(
                        "aaa 127.0.0.1:1@2 {first} - 0 1 1 connected 0-16382 [{slot}->-bbb]\n\
                         bbb 127.0.0.1:1@2 {second} - 0 1 1 connected 16383 [{slot}-<-aaa]\n"
                    ))
                }
                ("SCAN", _) => {
                    let key = if id == "aaa" { "{tag}here" } else { "{tag}gone ahead" };
                    format!("*2\r\n{}*1\r\n{}", bulk("0"), bulk(key))
                }
                _ => "+OK\r\n".to_owned(),
            }
        });
        std::future::ready(answer)
    })
    .await
}

#[tokio::test]
async fn a_receiver_that_clients_reach_by_another_address() {
    let ports = Arc::new(OnceLock::new());
    let first = node_behind_nat("aaa", Arc::clone(&ports)).await;
    let second = node_behind_nat("bbb", Arc::clone(&ports)).await;
    ports.set([first.port(), second.port()]).unwrap();
    let config = ValkeyConfig::default().addresses([first.address()]).mode(Mode::Cluster);
    let kv = ValkeyStore::connect(config).await.unwrap();
    let keys: HashSet<Bytes> = kv.scan(b"{tag}").try_collect().await.unwrap();
    assert_eq!(keys, HashSet::from([Bytes::from("{tag}here"), Bytes::from("{tag}gone ahead")]));
}
