//! The view of the servers, which calls and the background task share.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use derp_kv_core::{Error, ErrorKind, Event};
use tokio::sync::Notify;

use crate::address::Address;
use crate::cluster::ownership::Receiver;
use crate::cluster::slots::SlotMap;
use crate::cluster::topology::Topology;
use crate::config::ValkeyConfig;
use crate::io::Threads;
use crate::node::connection::Connection;
use crate::node::failure::Failure;
use crate::node::identity::{Node, NodeId};
use crate::node::link::Link;
use crate::observe::span::Server;

/// The servers as they are known now, and what makes that doubtful.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) config: Arc<ValkeyConfig>,
    pub(crate) threads: Threads,
    /// What spans say of where the servers are.
    pub(crate) server: Server,
    /// Held for a look-up or a swap, never while anything is awaited.
    topology: RwLock<Topology>,
    /// The view of the cluster is in doubt.
    stale: Notify,
    /// A node has said that a slot is elsewhere: the view is not just in doubt, it is wrong.
    redirect: Notify,
    /// Where a node of another cluster answers and no node of this one does.
    astray: Mutex<Option<Address>>,
}

/// Where a node says that a slot has moved.
pub(crate) enum Moved {
    /// To a node of the map.
    Known,
    /// To the node that says so: the nodes do not agree yet.
    Back,
    /// To a node that the map does not name: only this call goes there, until a map confirms it.
    Stranger(Arc<Link>),
}

impl View {
    pub(super) fn new(config: Arc<ValkeyConfig>, threads: Threads, topology: Topology) -> Self {
        Self {
            server: Server::of(&config),
            config,
            threads,
            topology: RwLock::new(topology),
            stale: Notify::new(),
            redirect: Notify::new(),
            astray: Mutex::new(None),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Topology> {
        self.topology.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn owner(&self, slot: u16) -> Option<Arc<Link>> {
        self.read().owner(slot).cloned()
    }

    /// The link for `key` to who serves its `slot`.
    pub(crate) fn link(&self, slot: u16, key: &[u8]) -> Option<Arc<Link>> {
        self.read().owner(slot).map(|link| Arc::clone(link.of(key)))
    }

    /// The healthy connection for `key` to who serves its `slot`.
    pub(super) fn live(&self, slot: u16, key: &[u8]) -> Option<Arc<Connection>> {
        self.read().owner(slot)?.of(key).live()
    }

    pub(crate) fn topology(&self) -> Topology {
        self.read().clone()
    }

    /// Asks for a fresh view of the cluster.
    pub(crate) fn doubt(&self) {
        self.stale.notify_one();
    }

    pub(crate) async fn doubted(&self) {
        self.stale.notified().await;
    }

    /// Returns once a slot is not where the view has it.
    pub(crate) async fn redirected(&self) {
        self.redirect.notified().await;
    }

    /// Notes where a slot has moved.
    pub(crate) fn moved(&self, slot: u16, to: &Address, from: &Address) -> Moved {
        self.doubt();
        self.redirect.notify_one();
        let known = self.read().moved(slot, to);
        if to == from {
            Moved::Back
        } else if known {
            Moved::Known
        } else {
            Moved::Stranger(self.link_to(&Node::at(to)))
        }
    }

    /// The link to a node that another node has named.
    pub(crate) fn link_to(&self, node: &Node) -> Arc<Link> {
        if let Some(link) = self.read().find(node) {
            return Arc::clone(link);
        }
        let mut topology = self.write();
        if let Some(link) = topology.find(node) {
            return Arc::clone(link);
        }
        let link = Link::new(node.clone(), Arc::clone(&self.config), &self.threads);
        *topology = topology.with_stranger(Arc::clone(&link));
        link
    }

    /// The link to the node that a slot is on its way to. `None`: nobody knows where it is.
    pub(crate) fn receiver(&self, to: &Receiver) -> Option<Arc<Link>> {
        let by_id = self.read().find_id(&to.id).cloned();
        by_id.or_else(|| {
            let id = Some(to.id.clone());
            Some(self.link_to(&Node { address: to.address.clone()?, id }))
        })
    }

    /// Swaps in the view that `map` describes, gives up the nodes that it lacks, and tells of the
    /// change where there is one.
    pub(crate) fn replace(&self, map: &SlotMap) {
        let (before, after) = {
            let mut topology = self.write();
            let after = Topology::cluster(map, &topology, &self.config, &self.threads);
            (std::mem::replace(&mut *topology, after.clone()), after)
        };
        for link in before.all_links() {
            if !after.all_links().any(|kept| Arc::ptr_eq(kept, link)) {
                link.retire();
            }
        }
        if after.differs_from(&before) {
            self.config.watcher.tell(Event::topology_changed(after.links().len()));
        }
    }

    /// Gives up the nodes that no map has named so far.
    pub(crate) fn forget_strangers(&self) {
        let mut topology = self.write();
        *topology = topology.without_strangers();
    }

    /// Notes that the node of this name belongs to the cluster.
    pub(crate) fn confirm(&self, id: NodeId) {
        self.write().confirm(id);
    }

    /// Notes whether all that answers is another cluster, and where.
    pub(crate) fn set_astray(&self, address: Option<Address>) {
        *self.astray.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// Why a call cannot reach the node of `link` now.
    pub(crate) fn obstacle(&self, link: &Link) -> Option<Error> {
        let astray = self.astray.lock().unwrap_or_else(PoisonError::into_inner);
        match &*astray {
            Some(address) => Some(another_cluster(address)),
            None => link.failure().map(Failure::into_error),
        }
    }

    /// Why nobody can be asked for `slot`.
    pub(crate) fn unserved(&self, slot: u16) -> Error {
        let reason = self.read().unserved(slot);
        Error::new(ErrorKind::Unavailable, format!("no node serves slot {slot}: {reason}"))
    }
}

pub(crate) fn another_cluster(address: &Address) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{address}: the address leads to another cluster"))
}
