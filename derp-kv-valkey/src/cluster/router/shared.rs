//! What the router and its background task share: the view of the servers.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::address::Address;
use crate::cluster::topology::Topology;
use crate::config::ValkeyConfig;
use crate::node::link::Link;
use crate::node::wire::Wire;

/// What the router and its background task share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<ValkeyConfig>,
    /// Held for a look-up or a swap, never while anything is awaited.
    topology: RwLock<Topology>,
    /// The view of the cluster is in doubt.
    stale: Notify,
}

impl Shared {
    pub(super) fn new(config: Arc<ValkeyConfig>, topology: Topology) -> Self {
        Self { config, topology: RwLock::new(topology), stale: Notify::new() }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn owner(&self, slot: u16) -> Option<Arc<Link>> {
        self.read().owner(slot).cloned()
    }

    /// The healthy connection to who serves `slot`.
    pub(super) fn live(&self, slot: u16) -> Option<Arc<Wire>> {
        self.read().owner(slot)?.live()
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

    /// Notes where a slot has moved; `true` where that is the node that said so.
    pub(crate) fn moved(&self, slot: u16, to: &Address, from: &Address) -> bool {
        self.doubt();
        let _ = self.link_to(to);
        self.read().moved(slot, to);
        to == from
    }

    /// The link to a node that another node has named.
    pub(crate) fn link_to(&self, address: &Address) -> Arc<Link> {
        if let Some(link) = self.read().find(address) {
            return Arc::clone(link);
        }
        let mut topology = self.topology.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = topology.find(address) {
            return Arc::clone(link);
        }
        let link = Link::new(address.clone(), Arc::clone(&self.config));
        *topology = topology.with(Arc::clone(&link));
        link
    }

    /// Swaps in a new view, and gives up the nodes that it lacks.
    pub(crate) fn replace(&self, build: impl FnOnce(&Topology) -> Topology) {
        let before = {
            let mut topology = self.topology.write().unwrap_or_else(PoisonError::into_inner);
            let after = build(&topology);
            std::mem::replace(&mut *topology, after)
        };
        let after = self.read();
        for link in before.links() {
            if after.find(link.address()).is_none() {
                link.retire();
            }
        }
    }
}
