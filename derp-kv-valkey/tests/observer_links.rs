//! What an observer hears of the links, and what the store says of its nodes.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{HANG, config, ends, recovers};
use derp_kv_core::{ErrorKind, Event, KvStore, LinkState, Observer};
use derp_kv_valkey::test_server::{Cluster, Server, slot_of};
use derp_kv_valkey::{Mode, NodeState, ValkeyConfig, ValkeyStore};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const SHORT: Duration = Duration::from_millis(600);

/// What was told, in order.
#[derive(Debug, Default)]
struct Heard {
    told: Mutex<Vec<Told>>,
    news: Notify,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Link(String, LinkState),
    Topology(usize),
}

impl Observer for Heard {
    fn event(&self, event: Event<'_>) {
        let told = match event {
            Event::Link { node, state, .. } => Told::Link(node.to_owned(), state),
            Event::TopologyChanged { primaries, .. } => Told::Topology(primaries),
            other => panic!("{other:?}"),
        };
        self.told.lock().unwrap().push(told);
        self.news.notify_waiters();
    }
}

impl Heard {
    /// Waits until what was told is so.
    async fn until(&self, what: &str, is_so: impl Fn(&[Told]) -> bool + Send + Sync) {
        let wait = async {
            loop {
                let news = self.news.notified();
                let mut news = std::pin::pin!(news);
                news.as_mut().enable();
                if is_so(&self.told.lock().unwrap()) {
                    return;
                }
                news.await;
            }
        };
        if tokio::time::timeout(HANG, wait).await.is_err() {
            panic!("not told: {what}; but {:?}", self.told.lock().unwrap());
        }
    }

    /// The states of the links to one node, by name.
    fn of(&self, address: &(String, u16)) -> Vec<&'static str> {
        states(&self.told.lock().unwrap(), address)
    }

    /// Waits until exactly this was told of one node.
    async fn hears(&self, address: &(String, u16), expected: &[&str]) {
        let so_many = |told: &[Told]| states(told, address).len() >= expected.len();
        self.until(&format!("{expected:?}"), so_many).await;
        assert_eq!(self.of(address), expected);
    }

    fn topologies(&self) -> Vec<usize> {
        let told = self.told.lock().unwrap();
        let changes = told.iter().filter_map(|told| match told {
            Told::Topology(primaries) => Some(*primaries),
            Told::Link(..) => None,
        });
        changes.collect()
    }
}

fn states(told: &[Told], address: &(String, u16)) -> Vec<&'static str> {
    let node = format!("{}:{}", address.0, address.1);
    let states = told.iter().filter_map(|told| match told {
        Told::Link(of, state) if *of == node => Some(state.name()),
        _ => None,
    });
    states.collect()
}

async fn observed(config: ValkeyConfig) -> (ValkeyStore, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let store = ValkeyStore::connect(config.observer(heard.clone())).await.expect("connect");
    (store, heard)
}

/// The state of the one node.
fn state(store: &ValkeyStore) -> NodeState {
    let [node] = &store.stats().nodes[..] else { panic!("{:?}", store.stats()) };
    node.state
}

#[tokio::test]
async fn a_dead_server_is_lost_then_failing_fast_then_back() {
    let mut server = Server::start().await.expect("server");
    let address = server.address();
    let (store, heard) = observed(config(address.clone()).op_timeout(SHORT)).await;
    assert!(store.observer().is_some());
    heard.hears(&address, &["connected"]).await;
    store.set(b"k", b"v", None).await.expect("set");
    assert_eq!(store.stats().nodes[0].address, format!("{}:{}", address.0, address.1));
    assert_eq!((state(&store), store.stats().nodes[0].reconnects), (NodeState::Connected, 0));

    // Nobody calls: it is told all the same.
    server.kill9();
    heard.hears(&address, &["connected", "lost", "failing_fast"]).await;
    assert_eq!(state(&store), NodeState::FailingFast);
    let error = ends("get", store.get(b"k")).await.expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    server.restart().await.expect("restart");
    heard.hears(&address, &["connected", "lost", "failing_fast", "back"]).await;
    ends("get", store.get(b"k")).await.expect("no call fails at once any more");
    assert_eq!((state(&store), store.stats().nodes[0].reconnects), (NodeState::Connected, 1));
    let told = heard.told.lock().unwrap().clone();
    let Some(Told::Link(_, LinkState::Back { after, .. })) = told.last() else {
        panic!("{told:?}")
    };
    assert!(*after >= SHORT, "{after:?}");
}

#[tokio::test]
async fn a_dropped_store_tells_nothing() {
    let mut server = Server::start().await.expect("server");
    let address = server.address();
    let (dropped, silent) = observed(config(address.clone())).await;
    let (_store, heard) = observed(config(address.clone())).await;
    silent.hears(&address, &["connected"]).await;
    heard.hears(&address, &["connected"]).await;
    drop(dropped);
    server.kill9();
    heard.hears(&address, &["connected", "lost"]).await;
    server.restart().await.expect("restart");
    heard.until("back", |told| states(told, &address).last() == Some(&"back")).await;
    assert_eq!(silent.of(&address), ["connected"]);
}

#[tokio::test]
async fn a_connection_that_is_cut_is_lost_and_back() {
    let server = Server::start().await.expect("server");
    let address = server.address();
    let (store, heard) = observed(config(address.clone())).await;
    heard.hears(&address, &["connected"]).await;
    for cut in 1..=3 {
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await.expect("cut");
        let mut expected = vec!["connected"];
        (0..cut).for_each(|_| expected.extend(["lost", "back"]));
        heard.hears(&address, &expected).await;
        assert_eq!(store.stats().nodes[0].reconnects, cut);
    }
}

#[tokio::test]
async fn a_frozen_server_is_silent_and_lost() {
    let mut server = Server::start().await.expect("server");
    let address = server.address();
    let (store, heard) = observed(config(address.clone()).op_timeout(SHORT)).await;
    store.set(b"k", b"v", None).await.expect("set");
    heard.hears(&address, &["connected"]).await;
    server.freeze().expect("freeze");
    let owed = {
        let store = store.clone();
        tokio::spawn(async move { ends("get", store.get(b"k")).await })
    };
    heard.hears(&address, &["connected", "lost"]).await;
    assert!([NodeState::Silent, NodeState::FailingFast].contains(&state(&store)));
    heard.hears(&address, &["connected", "lost", "failing_fast"]).await;
    assert_eq!(state(&store), NodeState::FailingFast);
    owed.await.expect("ends").expect_err("no answer");
    server.thaw().expect("thaw");
    heard.hears(&address, &["connected", "lost", "failing_fast", "back"]).await;
    ends("get", store.get(b"k")).await.expect("back");
    assert_eq!(state(&store), NodeState::Connected);
}

#[tokio::test]
async fn several_connections_are_told_of_as_one_node() {
    let mut server = Server::start().await.expect("server");
    let address = server.address();
    let config = config(address.clone()).connections(3).io_threads(2).op_timeout(SHORT);
    let (store, heard) = observed(config.client_name("lane")).await;
    heard.hears(&address, &["connected"]).await;
    let clients = server.command(&["CLIENT", "LIST"]).await.expect("list");
    let clients = clients.text().expect("text").to_owned();
    let ids: Vec<&str> = clients
        .lines()
        .filter(|line| line.contains("name=lane"))
        .filter_map(|line| line.strip_prefix("id=")?.split(' ').next())
        .collect();
    assert_eq!(ids.len(), 3, "{clients}");
    server.command(&["CLIENT", "KILL", "ID", ids[1]]).await.expect("cut");
    heard.hears(&address, &["connected", "lost", "back"]).await;
    assert_eq!(store.stats().nodes.len(), 1);
    assert_eq!(store.stats().nodes[0].reconnects, 1);

    server.kill9();
    let down = ["connected", "lost", "back", "lost", "failing_fast"];
    heard.hears(&address, &down).await;
    server.restart().await.expect("restart");
    heard.hears(&address, &[&down[..], &["back"]].concat()).await;
    assert_eq!((state(&store), store.stats().nodes[0].reconnects), (NodeState::Connected, 4));
}

#[tokio::test]
async fn requests_without_an_answer_are_in_flight() {
    let mut server = Server::start().await.expect("server");
    let store = common::connect(server.address()).await;
    let node = || store.stats().nodes.remove(0);
    assert_eq!((node().in_flight, node().round_trip), (0, None));
    store.set(b"k", b"v", None).await.expect("set");
    let round_trip = node().round_trip.expect("the first request is measured");
    assert!(round_trip > Duration::ZERO && round_trip < HANG);
    server.freeze().expect("freeze");
    let mut gets = JoinSet::new();
    for _ in 0..5 {
        let store = store.clone();
        gets.spawn(async move { ends("get", store.get(b"k")).await });
    }
    ends("5 in flight", async {
        while node().in_flight < 5 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.thaw().expect("thaw");
    while let Some(got) = gets.join_next().await {
        got.expect("ends").expect("a read is answered in the end");
    }
    ends("nothing in flight", async {
        // An answer is handed out a moment before it is counted out, and so may a probe's be.
        while node().in_flight > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_changes_the_topology_and_a_slot_that_moves_does() {
    let mut cluster =
        Cluster::builder(3, 1).node_timeout(Duration::from_secs(1)).start().await.expect("cluster");
    let address = |cluster: &Cluster, number: usize| cluster.node(number).address();
    let config = ValkeyConfig::default()
        .addresses(cluster.addresses())
        .mode(Mode::Cluster)
        .op_timeout(Duration::from_secs(10));
    let (store, heard) = observed(config).await;
    for number in 0..3 {
        let key = cluster.key_owned_by(number).await.expect("key");
        store.set(key.as_bytes(), b"v", None).await.expect("set");
        heard.hears(&address(&cluster, number), &["connected"]).await;
    }
    assert_eq!(store.stats().nodes.len(), 3);
    assert!(store.stats().nodes.iter().all(|node| node.state == NodeState::Connected));

    // The map is read anew and is the same.
    let reads = async |cluster: &Cluster| {
        let stats = cluster.node(2).command(&["INFO", "commandstats"]).await.expect("info");
        let stats = stats.text().expect("text").to_owned();
        let line = stats.lines().find(|line| line.starts_with("cmdstat_cluster|slots:calls="));
        line.and_then(|line| line.split(['=', ',']).nth(1)?.parse().ok()).unwrap_or(0_u64)
    };
    let before = reads(&cluster).await;
    let key = cluster.key_owned_by(1).await.expect("key");
    ends("the map is read anew", async {
        while reads(&cluster).await == before {
            cluster.node(1).command(&["CLIENT", "KILL", "TYPE", "normal"]).await.expect("cut");
            recovers(async || store.get(key.as_bytes()).await).await;
        }
    })
    .await;
    assert_eq!(heard.topologies(), [0; 0]);
    heard.until("back", |told| states(told, &address(&cluster, 1)).last() == Some(&"back")).await;

    // One slot moves, and one call meets it.
    let slot = slot_of(key.as_bytes());
    cluster.move_slot(slot, 2).await.expect("moved");
    recovers(async || store.get(key.as_bytes()).await).await;
    heard.until("a topology", |told| told.contains(&Told::Topology(3))).await;

    let lost = address(&cluster, 0);
    let key = cluster.key_owned_by(0).await.expect("key");
    let moved = heard.topologies().len();
    cluster.node_mut(0).kill9();
    heard.hears(&lost, &["connected", "lost"]).await;
    let new = cluster.wait_for_new_owner(slot_of(key.as_bytes()), 0).await.expect("failover");
    recovers(async || store.set(key.as_bytes(), b"v", None).await).await;
    let changes =
        |told: &[Told]| told.iter().filter(|told| matches!(told, Told::Topology(_))).count();
    heard.until("another topology", |told| changes(told) > moved).await;
    heard.hears(&address(&cluster, new), &["connected"]).await;
    assert!(heard.topologies().iter().all(|primaries| *primaries == 3), "{:?}", heard.topologies());
    let nodes = store.stats().nodes;
    let told = |address: (String, u16)| format!("{}:{}", address.0, address.1);
    assert!(nodes.iter().any(|node| node.address == told(address(&cluster, new))), "{nodes:?}");
    assert!(nodes.iter().all(|node| node.address != told(lost.clone())), "{nodes:?}");
}

#[derive(Debug)]
struct Panics;

impl Observer for Panics {
    fn event(&self, event: Event<'_>) {
        panic!("told of {event:?}");
    }
}

#[tokio::test]
async fn a_link_heals_whatever_its_observer_does() {
    let server = Server::start().await.expect("server");
    let config = config(server.address()).observer(Panics);
    let store = ValkeyStore::connect(config).await.expect("connect");
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await.expect("cut");
    ends("a reconnect", async {
        while store.stats().nodes[0].reconnects == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    recovers(async || store.get(b"k").await).await;
}

#[test]
fn settings_are_equal_that_share_an_observer() {
    let heard = Arc::new(Heard::default());
    let config = ValkeyConfig::default().observer(heard.clone());
    assert_eq!(config, config.clone());
    assert_ne!(config, ValkeyConfig::default());
    assert_ne!(config, ValkeyConfig::default().observer(heard));
    assert!(!format!("{config:?}").contains("Heard"), "{config:?}");
}
