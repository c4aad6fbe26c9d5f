//! The nodes in use, and who serves which slot.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::address::Address;
use crate::cluster::slots::{SLOTS, SlotMap};
use crate::config::ValkeyConfig;
use crate::node::link::Link;

const NOBODY: u16 = u16::MAX;

/// One view of the servers, shared by all callers and replaced as a whole.
///
/// Only the owner of a single slot is changed in place, when a server says that it has moved.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    links: Vec<Arc<Link>>,
    /// The index of each slot's owner in `links`; without a cluster there is none.
    owners: Option<Arc<[AtomicU16]>>,
    pub(crate) replicas: Vec<Address>,
}

impl Topology {
    pub(crate) fn standalone(link: Arc<Link>) -> Self {
        Self { links: vec![link], owners: None, replicas: Vec::new() }
    }

    /// The view that `map` describes. Nodes of `before` keep their connections.
    pub(crate) fn cluster(
        map: &SlotMap,
        before: &HashMap<Address, Arc<Link>>,
        config: &Arc<ValkeyConfig>,
    ) -> Self {
        let owners: Arc<[AtomicU16]> = (0..SLOTS).map(|_| AtomicU16::new(NOBODY)).collect();
        let mut links: Vec<Arc<Link>> = Vec::new();
        for (first, last, address) in &map.ranges {
            let index = links.iter().position(|link| link.address() == address);
            let index = index.unwrap_or_else(|| {
                links.push(match before.get(address) {
                    Some(link) => Arc::clone(link),
                    None => Link::new(address.clone(), Arc::clone(config)),
                });
                links.len() - 1
            });
            for owner in &owners[usize::from(*first)..=usize::from(*last)] {
                owner.store(index as u16, Ordering::Relaxed);
            }
        }
        Self { links, owners: Some(owners), replicas: map.replicas.clone() }
    }

    pub(crate) fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    pub(crate) fn by_address(&self) -> HashMap<Address, Arc<Link>> {
        self.links.iter().map(|link| (link.address().clone(), Arc::clone(link))).collect()
    }

    pub(crate) fn find(&self, address: &Address) -> Option<&Arc<Link>> {
        self.links.iter().find(|link| link.address() == address)
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

    /// Notes that `slot` has moved to a node of this view; `false` where it is not one.
    pub(crate) fn moved(&self, slot: u16, to: &Address) -> bool {
        let index = self.links.iter().position(|link| link.address() == to);
        match (index, &self.owners) {
            (Some(index), Some(owners)) => {
                if let Some(owner) = owners.get(usize::from(slot)) {
                    owner.store(index as u16, Ordering::Relaxed);
                }
                true
            }
            _ => false,
        }
    }

    /// This view with one more node. The owners are shared: indices stay as they are.
    pub(crate) fn with(&self, link: Arc<Link>) -> Self {
        let mut more = self.clone();
        more.links.push(link);
        more
    }
}
