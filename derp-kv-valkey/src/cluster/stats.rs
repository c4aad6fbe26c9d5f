//! What can be said of a store's nodes at any moment.

use crate::cluster::topology::Topology;
use crate::node::stats::NodeStats;

/// The nodes of a store as they are now: [`ValkeyStore::stats`](crate::ValkeyStore::stats).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ValkeyStats {
    /// The server; of a cluster the nodes that take writes, and those that are about to by what
    /// another node has said.
    pub nodes: Vec<NodeStats>,
}

impl ValkeyStats {
    pub(crate) fn of(topology: &Topology) -> Self {
        Self { nodes: topology.all_links().map(|link| link.stats()).collect() }
    }
}
