//! Which node it is that listens at an address.

use std::sync::Arc;

use crate::address::Address;
use crate::protocol::reply::Reply;

/// A node's name in its cluster, which it keeps for life. Addresses are handed from node to node.
pub(crate) type NodeId = Arc<str>;

/// A node: where it listens, and which one it is, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) address: Address,
    pub(crate) id: Option<NodeId>,
}

impl Node {
    /// Whichever node listens there.
    pub(crate) fn at(address: &Address) -> Self {
        Self { address: address.clone(), id: None }
    }
}

/// Reads the answer to `CLUSTER MYID`.
pub(crate) fn id(reply: &Reply) -> Option<NodeId> {
    let text = text(reply).filter(|text| !text.is_empty())?;
    Some(text.into())
}

/// Reads from the answer to `CLUSTER NODES` which of them has answered.
pub(crate) fn id_in_nodes(reply: &Reply) -> Option<NodeId> {
    text(reply)?.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (id, flags) = (words.next()?, words.nth(1)?);
        is_myself(flags).then(|| id.into())
    })
}

/// Whether these flags in `CLUSTER NODES` are of the node that answers.
pub(crate) fn is_myself(flags: &str) -> bool {
    flags.split(',').any(|flag| flag == "myself")
}

pub(crate) fn text(reply: &Reply) -> Option<&str> {
    match reply {
        Reply::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Reply::VerbatimString { text, .. } | Reply::SimpleString(text) => Some(text),
        _ => None,
    }
}
