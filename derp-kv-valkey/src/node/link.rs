//! The self-healing link to one node.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

use crate::address::Address;
use crate::config::ValkeyConfig;
use crate::io::Threads;
use crate::io::task::Task;
use crate::node::connection::Connection;
use crate::node::failure::Failure;
use crate::node::identity::Node;
use crate::node::news::Lane;
use crate::node::stats::{NodeState, NodeStats};
use crate::node::supervisor::{Down, Shared, State, supervise};

/// A node, connected now or soon.
///
/// One task of its own, on the I/O thread, connects, watches the connection, and connects again
/// after whatever happened, so that any number of callers share one attempt and no failure is ever
/// final. The task ends with the link.
#[derive(Debug)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    /// More links to the same node, where it has several connections.
    beside: Vec<Arc<Link>>,
    _supervisor: Task,
}

impl Link {
    /// A link that begins to connect at once.
    pub(crate) fn new(node: Node, config: Arc<ValkeyConfig>, threads: &Threads) -> Arc<Self> {
        let lane = Lane::first(&node.address, config.connections, &config.watcher);
        Self::start(node, config, threads, lane, State::down(), None)
    }

    /// A link over a connection that is there already.
    pub(crate) fn over(
        node: Node,
        config: Arc<ValkeyConfig>,
        threads: &Threads,
        connection: Arc<Connection>,
    ) -> Arc<Self> {
        let lane = Lane::first(&node.address, config.connections, &config.watcher);
        let state = State::Live(Arc::clone(&connection));
        Self::start(node, config, threads, lane, state, Some(connection))
    }

    fn start(
        node: Node,
        config: Arc<ValkeyConfig>,
        threads: &Threads,
        lane: Lane,
        state: State,
        connection: Option<Arc<Connection>>,
    ) -> Arc<Self> {
        let state = watch::Sender::new(state);
        let renew = Notify::new();
        let io = threads.of((&node.address, lane.number())).clone();
        let more = if lane.number() == 0 { config.connections } else { 0 };
        let beside = (1..more).map(|number| {
            let (config, lane) = (Arc::clone(&config), lane.beside(number));
            Self::start(node.clone(), config, threads, lane, State::down(), None)
        });
        let beside = beside.collect();
        let reconnects = AtomicU64::new(0);
        let shared = Arc::new(Shared { node, config, io, lane, state, renew, reconnects });
        let supervisor = shared.io.spawn(supervise(Arc::clone(&shared), connection));
        Arc::new(Self { shared, beside, _supervisor: supervisor })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.shared.node.address
    }

    /// The node that it leads to and no other, where its id is known.
    pub(crate) fn node(&self) -> &Node {
        &self.shared.node
    }

    /// The link for `key`. What is written to one key goes over one connection, so that it arrives in
    /// the order in which it was sent.
    pub(crate) fn of<'a>(self: &'a Arc<Self>, key: &[u8]) -> &'a Arc<Self> {
        if self.beside.is_empty() {
            return self;
        }
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key) as usize;
        self.beside.get(hash % (self.beside.len() + 1)).unwrap_or(self)
    }

    /// The connection, where there is a healthy one now.
    pub(crate) fn live(&self) -> Option<Arc<Connection>> {
        match &*self.shared.state.borrow() {
            State::Live(connection) if !connection.is_silent() => Some(Arc::clone(connection)),
            _ => None,
        }
    }

    /// Waits for a healthy connection, for as long as it takes.
    pub(crate) async fn connection(&self) -> Arc<Connection> {
        let mut changes = self.shared.state.subscribe();
        loop {
            if let Some(connection) = self.live() {
                return connection;
            }
            // The sender lives in `self`: this waits, it cannot fail.
            let _ = changes.changed().await;
        }
    }

    /// Why there is no connection now, where the last attempt has failed.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match &*self.shared.state.borrow() {
            State::Down(down) => down.failure.clone(),
            State::Live(_) => None,
        }
    }

    /// How the node is now, by all connections to it.
    pub(crate) fn stats(&self) -> NodeStats {
        let (state, connection) = match &*self.shared.state.borrow() {
            State::Live(connection) => (NodeState::Connected, Some(Arc::clone(connection))),
            State::Down(down) if down.since.elapsed() >= self.shared.config.op_timeout => {
                (NodeState::FailingFast, down.silent.clone())
            }
            State::Down(Down { silent: Some(connection), .. }) => {
                (NodeState::Silent, Some(Arc::clone(connection)))
            }
            State::Down(_) => (NodeState::Connecting, None),
        };
        let (in_flight, round_trip) = connection.map_or((0, None), |connection| connection.load());
        let one = NodeStats {
            address: self.address().to_string(),
            state,
            in_flight,
            reconnects: self.shared.reconnects.load(Ordering::Relaxed),
            round_trip,
        };
        self.beside.iter().fold(one, |all, link| all.and(link.stats()))
    }

    /// Why there has been no connection for a whole deadline: nobody should wait for one.
    pub(crate) fn lasting_failure(&self) -> Option<Failure> {
        match &*self.shared.state.borrow() {
            State::Down(down) if down.since.elapsed() >= self.shared.config.op_timeout => {
                let unknown = || Failure::unavailable(self.address(), "the server does not answer");
                Some(down.failure.clone().unwrap_or_else(unknown).lasting())
            }
            _ => None,
        }
    }

    /// Asks for a fresh connection, now or soon, for when the name may lead to another server now.
    /// What is written on the present one is answered there.
    pub(crate) fn renew(&self) {
        self.shared.renew.notify_one();
        self.beside.iter().for_each(|link| link.renew());
    }

    /// Gives up a node that is no longer in the cluster's map: where it is silent, what waits for
    /// it is released.
    pub(crate) fn retire(&self) {
        self.shared.lane.remove();
        if let State::Down(Down { silent: Some(connection), .. }) = &*self.shared.state.borrow() {
            connection.kill();
        }
        self.beside.iter().for_each(|link| link.retire());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.lane.end();
    }
}
