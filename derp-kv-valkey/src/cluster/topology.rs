//! The nodes in use, and who serves which slot.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::address::Address;
use crate::cluster::slots::{Reason, SLOTS, SlotMap};
use crate::config::ValkeyConfig;
use crate::io::Threads;
use crate::node::identity::{Node, NodeId};
use crate::node::link::Link;

const NOBODY: u16 = u16::MAX;
const CONTRADICTION: Reason = "several rows of CLUSTER SLOTS claim it";

/// One view of the servers, shared by all callers and replaced as a whole.
///
/// Only the owner of a single slot is changed in place, when a server says that it has moved.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    links: Vec<Arc<Link>>,
    /// Nodes that another node has named and the map does not. No slot is theirs.
    strangers: Vec<Arc<Link>>,
    /// Which of those are known to belong to this cluster.
    confirmed: Vec<NodeId>,
    /// The index of each slot's owner in `links`; without a cluster there is none.
    owners: Option<Arc<[AtomicU16]>>,
    /// Why a slot has no owner, where the map tells.
    unserved: Arc<HashMap<u16, Reason>>,
    pub(crate) replicas: Vec<Node>,
    /// Who serves what by the map alone, without what redirects have changed since.
    mapped: Arc<[(u16, u16, Node)]>,
}

impl Topology {
    pub(crate) fn standalone(link: Arc<Link>) -> Self {
        Self {
            links: vec![link],
            strangers: Vec::new(),
            confirmed: Vec::new(),
            owners: None,
            unserved: Arc::default(),
            replicas: Vec::new(),
            mapped: Arc::default(),
        }
    }

    /// The view that `map` describes. Nodes of `before` keep their connections.
    pub(crate) fn cluster(
        map: &SlotMap,
        before: &Self,
        config: &Arc<ValkeyConfig>,
        threads: &Threads,
    ) -> Self {
        let owners: Arc<[AtomicU16]> = (0..SLOTS).map(|_| AtomicU16::new(NOBODY)).collect();
        let mut links: Vec<Arc<Link>> = Vec::new();
        let mut unserved = HashMap::new();
        for (first, last, node) in &map.ranges {
            let row = node.as_ref().map_err(|reason| *reason).map(|node| {
                let known = links.iter().position(|link| is(link, node));
                known.unwrap_or_else(|| {
                    links.push(before.link(node, config, threads));
                    links.len() - 1
                }) as u16
            });
            for slot in *first..=*last {
                let Some(owner) = owners.get(usize::from(slot)) else { continue };
                let earlier = owner.load(Ordering::Relaxed);
                let is_first = earlier == NOBODY && !unserved.contains_key(&slot);
                let now = if is_first || row == Ok(earlier) { row } else { Err(CONTRADICTION) };
                owner.store(now.unwrap_or(NOBODY), Ordering::Relaxed);
                if let Err(reason) = now {
                    unserved.insert(slot, reason);
                }
            }
        }
        // What a redirect names again and again is not connected to anew after each refresh.
        let mut strangers = before.strangers.clone();
        strangers.retain(|link| map.nodes().all(|node| &node.address != link.address()));
        Self {
            links,
            strangers,
            confirmed: before.confirmed.clone(),
            owners: Some(owners),
            unserved: Arc::new(unserved),
            replicas: map.replicas.clone(),
            mapped: map.served().into(),
        }
    }

    /// Whether the map of `other` has other nodes that serve slots, or gives them other slots.
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        self.mapped != other.mapped
    }

    /// The link of this view to `node`, or a new one. An old link to another node at the same
    /// address is none: whoever answers there now is not that node.
    fn link(&self, node: &Node, config: &Arc<ValkeyConfig>, threads: &Threads) -> Arc<Link> {
        match self.links.iter().find(|link| is(link, node)) {
            Some(link) => Arc::clone(link),
            None => Link::new(node.clone(), Arc::clone(config), threads),
        }
    }

    pub(crate) fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    /// The links to all nodes, whoever has named them.
    pub(crate) fn all_links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.iter().chain(&self.strangers)
    }

    /// The link to the node of this name, at whichever address.
    pub(crate) fn find_id(&self, id: &NodeId) -> Option<&Arc<Link>> {
        self.all_links().find(|link| link.node().id.as_ref() == Some(id))
    }

    /// The link to `node`: by its id where that is known, by its address otherwise.
    pub(crate) fn find(&self, node: &Node) -> Option<&Arc<Link>> {
        match &node.id {
            Some(id) => self.find_id(id),
            None => {
                let there = self.all_links().filter(|link| link.address() == &node.address);
                // A node that has left the address may still be known there.
                there.max_by_key(|link| link.live().is_some())
            }
        }
    }

    /// This view with one more node that no map has named.
    pub(crate) fn with_stranger(&self, link: Arc<Link>) -> Self {
        let mut more = self.clone();
        more.strangers.push(link);
        more
    }

    /// This view without the nodes that no map has named.
    pub(crate) fn without_strangers(&self) -> Self {
        Self { strangers: Vec::new(), confirmed: Vec::new(), ..self.clone() }
    }

    /// Notes that the node of this name belongs to the cluster.
    pub(crate) fn confirm(&mut self, id: NodeId) {
        self.confirmed.push(id);
    }

    fn ids(&self) -> impl Iterator<Item = &NodeId> {
        let links = self.links.iter().filter_map(|link| link.node().id.as_ref());
        let replicas = self.replicas.iter().filter_map(|replica| replica.id.as_ref());
        links.chain(replicas).chain(&self.confirmed)
    }

    /// Whether the servers tell ids: otherwise one cluster cannot be told from another.
    pub(crate) fn has_ids(&self) -> bool {
        self.ids().next().is_some()
    }

    pub(crate) fn knows(&self, id: &NodeId) -> bool {
        self.ids().any(|known| known == id)
    }

    /// Whether `map` can be of this cluster: it names a node that is known to belong to it.
    pub(crate) fn is_of_same_cluster(&self, map: &SlotMap) -> bool {
        !self.has_ids() || map.nodes().any(|node| node.id.as_ref().is_some_and(|id| self.knows(id)))
    }

    /// Who serves `slot`, as far as known.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Arc<Link>> {
        match &self.owners {
            None => self.links.first(),
            Some(owners) => {
                let index = owners.get(usize::from(slot))?.load(Ordering::Relaxed);
                self.links.get(usize::from(index))
            }
        }
    }

    /// Why nobody serves `slot`.
    pub(crate) fn unserved(&self, slot: u16) -> Reason {
        self.unserved.get(&slot).copied().unwrap_or("no row of CLUSTER SLOTS names it")
    }

    /// Notes that `slot` has moved to a node of the map; `false` where it is not one.
    pub(crate) fn moved(&self, slot: u16, to: &Address) -> bool {
        let there = self.links.iter().enumerate().filter(|(_, link)| link.address() == to);
        let there = there.max_by_key(|(_, link)| link.live().is_some());
        match (there, &self.owners) {
            (Some((index, _)), Some(owners)) => {
                if let Some(owner) = owners.get(usize::from(slot)) {
                    owner.store(index as u16, Ordering::Relaxed);
                }
                true
            }
            _ => false,
        }
    }
}

/// Whether `link` leads to `node`, which a map names.
fn is(link: &Link, node: &Node) -> bool {
    link.address() == &node.address && (node.id.is_none() || link.node().id == node.id)
}
