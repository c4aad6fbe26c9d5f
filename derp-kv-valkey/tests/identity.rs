//! An address is no identity: whoever listens where a node was known need not be that node.

mod common;
mod fake;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{connect_cluster, ends, recovers};
use derp_kv_core::{Error, ErrorKind, KvStore};
use derp_kv_valkey::ValkeyStore;
use derp_kv_valkey::test_server::{Cluster, Server};
use fake::{Fake, greeting, slots};

const PATIENT: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_secs(2);

/// A cluster of one node of its own, at a port that was another's.
async fn other_cluster_at(port: u16) -> Server {
    let server = Server::builder()
        .option("cluster-enabled", "yes")
        .option("port", port.to_string())
        // The replica of the dead primary would copy its data from here otherwise.
        .option("repl-diskless-sync-delay", "3600")
        .start()
        .await
        .expect("a node of another cluster");
    server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await.expect("slots");
    let ready = async {
        loop {
            let info = server.command(&["CLUSTER", "INFO"]).await.expect("info");
            if info.text().expect("text").contains("cluster_state:ok") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    ends("another cluster", ready).await;
    server
}

/// The nodes agree before the primary tells its clients of the replica.
async fn until_replica_is_known(primary: &Server) {
    let known = async {
        loop {
            let rows = primary.command(&["CLUSTER", "SLOTS"]).await.expect("slots");
            // First and last slot, the primary, the replica.
            if rows.array().expect("rows")[0].array().expect("row").len() == 4 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    ends("the replica", known).await;
}

/// How many commands on keys a server has executed.
async fn touched(server: &Server) -> usize {
    let stats = server.command(&["INFO", "commandstats"]).await.expect("stats");
    let names = ["get", "set", "mget", "del", "exists", "eval", "evalsha", "scan"];
    let is_used = |name: &&&str| stats.text().expect("text").contains(&format!("cmdstat_{name}:"));
    names.iter().filter(is_used).count()
}

async fn refused(store: &ValkeyStore) -> Vec<Error> {
    let mut errors = Vec::new();
    errors.extend(ends("get", store.get(b"live")).await.err());
    errors.extend(ends("set_nx", store.set_nx(b"lock", b"mine", None)).await.err());
    errors.extend(ends("mget", store.mget(&[b"live"])).await.err());
    errors.extend(ends("incr", store.incr(b"n", 1, None)).await.err());
    errors
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_at_the_address_of_a_dead_primary() {
    let mut cluster = Cluster::start(1, 1).await.expect("cluster");
    let seed = vec![cluster.node(0).address()];
    until_replica_is_known(cluster.node(0)).await;
    let store = connect_cluster(seed.clone(), SHORT).await;
    store.set(b"live", b"v", None).await.expect("set");
    cluster.node(0).command(&["WAIT", "1", "20000"]).await.expect("replicated");
    cluster.node_mut(0).kill9();
    let other = other_cluster_at(cluster.node(0).port()).await;

    let errors = refused(&store).await;
    assert_eq!(errors.len(), 4, "nobody serves: {errors:?}");
    for error in &errors {
        assert!(error.is_transient() && !error.may_have_applied(), "{error:?}");
        assert!(error.to_string().contains("another"), "it says what is there: {error}");
    }
    cluster.node(1).command(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await.expect("promoted");
    let (value, _) = recovers(async || store.get(b"live").await).await;
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    assert!(store.set_nx(b"lock", b"mine", None).await.expect("the replica serves"));
    assert_eq!(cluster.node(1).command(&["EXISTS", "lock"]).await.unwrap().int().unwrap(), 1);
    assert_eq!(touched(&other).await, 0, "nothing was sent to the other cluster");
    // Who has never known the first cluster is free to use the other one.
    let stranger = connect_cluster(seed, SHORT).await;
    assert_eq!(stranger.get(b"live").await.expect("another cluster"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_at_the_address_of_a_dead_replica() {
    let mut cluster = Cluster::start(1, 1).await.expect("cluster");
    let store = connect_cluster(cluster.addresses(), SHORT).await;
    store.set(b"live", b"v", None).await.expect("set");
    cluster.node_mut(1).kill9();
    let other = other_cluster_at(cluster.node(1).port()).await;
    assert!(store.get(b"live").await.expect("the primary serves").is_some());
    cluster.node_mut(0).kill9();
    let errors = refused(&store).await;
    assert_eq!(errors.len(), 4, "nobody serves: {errors:?}");
    let says_so = errors.iter().any(|error| error.to_string().contains("leads to another cluster"));
    assert!(says_so, "{errors:?}");
    cluster.node_mut(0).restart().await.expect("restart");
    let ((), _) = recovers(async || store.set(b"live", b"w", None).await).await;
    assert_eq!(touched(&other).await, 0, "nothing was sent to the other cluster");
}

/// As of pods that all restart and are handed each other's addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_exchange_their_addresses() {
    let mut cluster = Cluster::start(3, 0).await.expect("cluster");
    let store = connect_cluster(cluster.addresses(), SHORT).await;
    let keys: Vec<_> = [5, 8000, 16000].map(Cluster::key_in).into();
    for key in &keys {
        store.set(key.as_bytes(), b"v", None).await.expect("set");
    }
    let ports: Vec<_> = cluster.nodes().iter().map(Server::port).collect();
    for number in 0..3 {
        cluster.node_mut(number).kill9();
    }
    for number in 0..3 {
        let node = cluster.node_mut(number);
        node.set_option("port", ports[(number + 1) % 3].to_string());
        node.restart().await.expect("restart");
    }
    for (number, key) in keys.iter().enumerate() {
        recovers(async || store.set(key.as_bytes(), b"w", None).await).await;
        let stored = cluster.node(number).command(&["EXISTS", key]).await.expect("exists");
        assert_eq!(stored.int().unwrap(), 1, "at its owner");
    }
}

/// A node of a cluster of fakes: it serves every slot unless told otherwise.
async fn node(
    id: &'static str,
    get: impl Fn(u16) -> String + Send + Sync + 'static,
    map: impl Fn(u16) -> String + Send + Sync + 'static,
    gets: Arc<AtomicU64>,
) -> Fake {
    Fake::with_port(move |port, request| {
        let answer = greeting(&request, "8.0.1", "cluster").unwrap_or_else(|| {
            match (request[0].as_str(), request.get(1).map(String::as_str)) {
                ("CLUSTER", Some("MYID")) => format!("${}\r\n{id}\r\n", id.len()),
                ("CLUSTER", Some("SLOTS")) => map(port),
                ("GET", _) => {
                    gets.fetch_add(1, Ordering::Relaxed);
                    get(port)
                }
                _ => "+OK\r\n".to_owned(),
            }
        });
        std::future::ready(answer)
    })
    .await
}

fn served(_: u16) -> String {
    "$1\r\nv\r\n".to_owned()
}

/// A node that serves all slots by its map, and redirects each call to a port.
async fn redirecting(kind: &'static str, to: u16) -> Fake {
    node(
        "aaa",
        move |_| format!("-{kind} 0 127.0.0.1:{to}\r\n"),
        |port| slots(&[(0, 16383, "127.0.0.1", port, "aaa")]),
        Arc::default(),
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_to_a_node_of_another_cluster() {
    let gets = Arc::new(AtomicU64::new(0));
    let other = node(
        "bbb",
        served,
        |port| slots(&[(0, 16383, "127.0.0.1", port, "bbb")]),
        Arc::clone(&gets),
    )
    .await;
    for kind in ["ASK", "MOVED"] {
        let to = other.port();
        let first = redirecting(kind, to).await;
        let store = connect_cluster(vec![first.address()], SHORT).await;
        let error = ends("get", store.get(b"k")).await.expect_err("nobody serves");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let named = format!("127.0.0.1:{to}: the address leads to another cluster");
        assert!(error.to_string().contains(&named), "{error}");
        ends("mget", store.mget(&[b"k"])).await.expect_err("nobody serves");
    }
    assert_eq!(gets.load(Ordering::Relaxed), 0, "nothing was sent to the other cluster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_to_a_new_node_of_the_cluster() {
    let old = Arc::new(AtomicU64::new(0));
    let port = Arc::clone(&old);
    let new = node(
        "new",
        served,
        move |_| {
            let old = u16::try_from(port.load(Ordering::Relaxed)).unwrap();
            slots(&[(0, 16383, "127.0.0.1", old, "aaa")])
        },
        Arc::default(),
    )
    .await;
    for kind in ["ASK", "MOVED"] {
        let to = new.port();
        let first = redirecting(kind, to).await;
        old.store(first.port().into(), Ordering::Relaxed);
        let store = connect_cluster(vec![first.address()], PATIENT).await;
        let value = ends("get", store.get(b"k")).await.expect("the new node is of the cluster");
        assert_eq!(value.as_deref(), Some(&b"v"[..]));
        let values = ends("mget", store.mget(&[b"k"])).await.expect("the same");
        assert_eq!(values[0].as_deref(), Some(&b"v"[..]));
    }
}

/// A node that is reset and joins another cluster does not close its connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_node_has_joined_another_cluster() {
    let moved = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&moved);
    let fake = Fake::with_port(move |port, request| {
        let now = Arc::clone(&now);
        let id = if now.load(Ordering::Relaxed) { "bbb" } else { "aaa" };
        let answer = greeting(&request, "8.0.1", "cluster").unwrap_or_else(|| {
            match (request[0].as_str(), request.get(1).map(String::as_str)) {
                ("CLUSTER", Some("MYID")) => format!("$3\r\n{id}\r\n"),
                ("CLUSTER", Some("SLOTS")) => slots(&[(0, 16383, "127.0.0.1", port, id)]),
                ("GET", Some("down")) => "-CLUSTERDOWN Hash slot not served\r\n".to_owned(),
                _ => served(port),
            }
        });
        std::future::ready(answer)
    })
    .await;
    let store = connect_cluster(vec![fake.address()], SHORT).await;
    assert!(store.get(b"k").await.expect("served").is_some());
    moved.store(true, Ordering::Relaxed);
    // The first doubt brings it to light.
    ends("get", store.get(b"down")).await.expect_err("down");
    let error = ends("get", store.get(b"k")).await.expect_err("another cluster");
    assert!(error.to_string().contains("another"), "{error}");
    moved.store(false, Ordering::Relaxed);
    recovers(async || store.get(b"k").await).await;
}

/// Without the right to ask for its id, a node tells it in its list of all nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_only_the_list_of_nodes_tells() {
    let ids = HashMap::from([(false, "aaa"), (true, "bbb")]);
    let moved = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&moved);
    let fake = Fake::with_port(move |port, request| {
        let id = ids[&now.load(Ordering::Relaxed)];
        let answer = greeting(&request, "8.0.1", "cluster").unwrap_or_else(|| {
            match (request[0].as_str(), request.get(1).map(String::as_str)) {
                ("CLUSTER", Some("MYID")) => "-NOPERM no permissions\r\n".to_owned(),
                ("CLUSTER", Some("NODES")) => {
                    let line = format!("{id} :{port}@1 myself,master - 0 1 1 connected 0-16383\n");
                    format!("${}\r\n{line}\r\n", line.len())
                }
                // The map is the old one: only the connection tells.
                ("CLUSTER", Some("SLOTS")) => slots(&[(0, 16383, "127.0.0.1", port, "aaa")]),
                _ => served(port),
            }
        });
        std::future::ready(answer)
    })
    .await;
    let store = connect_cluster(vec![fake.address()], SHORT).await;
    assert!(store.get(b"k").await.expect("served").is_some());
    moved.store(true, Ordering::Relaxed);
    fake.cut_all();
    let error = async {
        loop {
            if let Err(error) = store.get(b"k").await {
                break error;
            }
        }
    };
    let error = ends("get", error).await;
    assert!(error.to_string().contains("another node answers at this address"), "{error}");
    moved.store(false, Ordering::Relaxed);
    recovers(async || store.get(b"k").await).await;
}
