//! What a cluster node says about its own slots.

use crate::address::Address;
use crate::cluster::slots::SLOTS;
use crate::node::identity::{NodeId, is_myself, text};
use crate::protocol::reply::Reply;

/// A set of slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotSet(Box<[u64]>);

impl SlotSet {
    pub(crate) fn none() -> Self {
        Self(vec![0; SLOTS / 64].into())
    }

    pub(crate) fn all() -> Self {
        Self(vec![u64::MAX; SLOTS / 64].into())
    }

    pub(crate) fn one(slot: u16) -> Self {
        let mut set = Self::none();
        set.insert(slot);
        set
    }

    pub(crate) fn insert(&mut self, slot: u16) {
        if let Some(word) = self.0.get_mut(usize::from(slot / 64)) {
            *word |= 1 << (slot % 64);
        }
    }

    pub(crate) fn contains(&self, slot: u16) -> bool {
        self.0.get(usize::from(slot / 64)).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    pub(crate) fn first(&self) -> Option<u16> {
        let (index, word) = self.0.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some((index * 64) as u16 + word.trailing_zeros() as u16)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }

    pub(crate) fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(left, right)| left & right).collect())
    }

    pub(crate) fn remove_all(&mut self, other: &Self) {
        for (word, gone) in self.0.iter_mut().zip(&other.0) {
            *word &= !gone;
        }
    }
}

/// The slots that a node serves as a primary, and those of them that are on their way elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ownership {
    pub(crate) owned: SlotSet,
    pub(crate) leaving: Vec<(u16, Receiver)>,
}

/// The node that a slot is on its way to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receiver {
    pub(crate) id: NodeId,
    /// Where the other nodes reach it, which need not be where clients do.
    pub(crate) address: Option<Address>,
}

impl Ownership {
    /// Reads what `node` says of itself in its answer to `CLUSTER NODES`.
    pub(crate) fn parse(reply: &Reply, node: &Address) -> Option<Self> {
        let nodes = text(reply)?;
        let lines = || nodes.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let myself = lines().find(|line| line.get(2).is_some_and(|flags| is_myself(flags)))?;
        // A certificate may hold names only: where this node goes by one, so do the others.
        let by_name = name_of(&myself) == Some(node.host());
        let address_of = |id: &str| {
            let line = lines().find(|line| line.first() == Some(&id))?;
            let place = Address::parse(line.get(1)?.split(['@', ',']).next()?, node)?;
            Some(match name_of(&line).filter(|_| by_name) {
                Some(name) => Address::new(name, place.port()),
                None => place,
            })
        };
        let mut ownership = Self { owned: SlotSet::none(), leaving: Vec::new() };
        for range in myself.get(8..).unwrap_or_default() {
            if let Some(open) = range.strip_prefix('[') {
                // `[slot->-node]` is leaving, `[slot-<-node]` is arriving.
                if let Some((slot, to)) = open.trim_end_matches(']').split_once("->-") {
                    let receiver = Receiver { id: to.into(), address: address_of(to) };
                    ownership.leaving.push((slot.parse().ok()?, receiver));
                }
                continue;
            }
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            for slot in first.parse::<u16>().ok()?..=last.parse::<u16>().ok()? {
                ownership.owned.insert(slot);
            }
        }
        Some(ownership)
    }
}

/// The host name in a line's `ip:port@busport[,name]`.
fn name_of<'a>(line: &[&'a str]) -> Option<&'a str> {
    line.get(1)?.split(',').nth(1).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let mut set = SlotSet::all();
        assert_eq!(set.first(), Some(0));
        set.remove_all(&SlotSet::one(0));
        assert_eq!(set.first(), Some(1));
        assert!(set.contains(16383) && !set.contains(0));
        assert_eq!(set.and(&SlotSet::one(16383)), SlotSet::one(16383));
        set.clear();
        assert!(set.is_empty());
    }

    #[test]
    fn reads_its_own_line() {
        let text = "\
aaa 10.0.0.1:7000@17000 master - 0 1 1 connected 0-99\n\
bbb :7001@17001,host.example myself,master - 0 1 2 connected 100-102 200 [101->-aaa] [7-<-aaa]\n\
ccc 10.0.0.3:7002@17002 slave bbb 0 1 2 connected\n";
        let reply = Reply::BulkString(text.as_bytes().to_vec().into());
        let ownership = Ownership::parse(&reply, &Address::new("here", 7001)).unwrap();
        let receiver = Receiver { id: "aaa".into(), address: Some(Address::new("10.0.0.1", 7000)) };
        assert_eq!(ownership.leaving, [(101, receiver)]);
        let mut owned = SlotSet::none();
        for slot in [100, 101, 102, 200] {
            owned.insert(slot);
        }
        assert_eq!(ownership.owned, owned);
    }

    #[test]
    fn nodes_go_by_name_where_the_one_that_answers_does() {
        let text = "\
aaa 10.0.0.1:7000@17000,one.example master - 0 1 1 connected 0-99\n\
bbb 10.0.0.2:7001@17001,two.example myself,master - 0 1 2 connected 101 [101->-aaa] [102->-ccc]\n\
ccc 10.0.0.3:7002@17002, master - 0 1 2 connected\n";
        let reply = Reply::BulkString(text.as_bytes().to_vec().into());
        let leaving = |host| {
            let node = Address::new(host, 7001);
            let leaving = Ownership::parse(&reply, &node).unwrap().leaving.into_iter();
            leaving.map(|(_, to)| to.address.unwrap().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(leaving("two.example"), ["one.example:7000", "10.0.0.3:7002"]);
        assert_eq!(leaving("10.0.0.2"), ["10.0.0.1:7000", "10.0.0.3:7002"]);
    }

    #[test]
    fn a_replica_owns_nothing() {
        let text = "bbb 10.0.0.2:7001@17001 myself,slave aaa 0 1 2 connected\n";
        let reply = Reply::BulkString(text.as_bytes().to_vec().into());
        let ownership = Ownership::parse(&reply, &Address::new("h", 1)).unwrap();
        assert!(ownership.owned.is_empty());
        assert_eq!(Ownership::parse(&Reply::Nil, &Address::new("h", 1)), None);
    }
}
