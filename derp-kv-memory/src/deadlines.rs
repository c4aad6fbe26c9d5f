//! The deadlines of a shard in the order in which they pass.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::{Deadline, Now};
use crate::table::is_mostly_unused;

/// Up to this many nodes, stale ones among them do not matter.
pub(crate) const FEW_NODES: usize = 64;

/// A heap of nodes, each a deadline and the hash of its key. Entries are rewritten and deleted
/// without a look at it, so it may hold stale nodes, which belong to no entry any more.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    nodes: BinaryHeap<Reverse<(Deadline, u64)>>,
}

impl Deadlines {
    pub(crate) fn push(&mut self, deadline: Deadline, hash: u64) {
        self.nodes.push(Reverse((deadline, hash)));
    }

    /// Takes out the earliest node, if its deadline has passed.
    pub(crate) fn pop_due(&mut self, now: &Now<'_>) -> Option<(Deadline, u64)> {
        let Reverse((deadline, _)) = self.nodes.peek()?;
        if !deadline.passed(now) {
            return None;
        }
        self.nodes.pop().map(|Reverse(node)| node)
    }

    /// Whether most nodes are stale, given how many of them are not.
    pub(crate) fn is_mostly_stale(&self, current: usize) -> bool {
        self.nodes.len() > FEW_NODES.max(2 * current)
    }

    /// Keeps one node of each that `is_current`.
    pub(crate) fn retain(&mut self, is_current: impl Fn(Deadline, u64) -> bool) {
        let mut nodes = std::mem::take(&mut self.nodes).into_vec();
        // A deadline that was left and taken again has two nodes.
        nodes.sort_unstable();
        nodes.dedup();
        nodes.retain(|&Reverse((deadline, hash))| is_current(deadline, hash));
        self.nodes = nodes.into();
    }

    /// Gives memory back where little of it is used.
    pub(crate) fn shrink(&mut self) {
        if is_mostly_unused(self.nodes.len(), self.nodes.capacity()) {
            self.nodes.shrink_to(2 * self.nodes.len());
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.nodes.capacity()
    }
}
