//! The deadlines of a shard in the order in which they pass.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::{Deadline, Now};
use crate::table::is_mostly_unused;

/// Below this many nodes, stale ones among them do not matter.
pub(crate) const FEW_NODES: usize = 64;

/// A heap of nodes, each a deadline and what tells its entry. Entries are rewritten and deleted
/// without a look at it, so it may hold stale nodes, which belong to no entry any more.
#[derive(Debug)]
pub(crate) struct Deadlines<N: Ord> {
    nodes: BinaryHeap<Reverse<(Deadline, N)>>,
}

impl<N: Ord> Default for Deadlines<N> {
    fn default() -> Self {
        Self { nodes: BinaryHeap::new() }
    }
}

impl<N: Ord> Deadlines<N> {
    pub(crate) fn push(&mut self, deadline: Deadline, node: N) {
        self.nodes.push(Reverse((deadline, node)));
    }

    /// The earliest deadline.
    pub(crate) fn first(&self) -> Option<Deadline> {
        self.nodes.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Takes out the earliest node, if its deadline has passed.
    pub(crate) fn pop_due(&mut self, now: &Now<'_>) -> Option<(Deadline, N)> {
        if !self.first()?.passed(now) {
            return None;
        }
        self.nodes.pop().map(|Reverse(node)| node)
    }

    /// Whether most nodes are stale, given how many of them are not.
    pub(crate) fn is_mostly_stale(&self, current: usize) -> bool {
        // So many fit the capacity that a small heap has, which then never grows.
        self.nodes.len() >= FEW_NODES.max(2 * current + 1)
    }

    /// Keeps the nodes that are current.
    pub(crate) fn retain(&mut self, is_current: impl Fn(&N) -> bool) {
        self.nodes.retain(|Reverse((_, node))| is_current(node));
    }

    /// Keeps one node of each that `is_current`.
    pub(crate) fn retain_one_of_each(&mut self, is_current: impl Fn(Deadline, &N) -> bool) {
        let mut nodes = std::mem::take(&mut self.nodes).into_vec();
        // A deadline that was left and taken again has two nodes.
        nodes.sort_unstable();
        nodes.dedup();
        nodes.retain(|Reverse((deadline, node))| is_current(*deadline, node));
        self.nodes = nodes.into();
    }

    /// Gives memory back where little of it is used.
    pub(crate) fn shrink(&mut self) {
        if is_mostly_unused(self.nodes.len(), self.nodes.capacity()) {
            self.nodes.shrink_to(2 * self.nodes.len());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.nodes.capacity()
    }
}
