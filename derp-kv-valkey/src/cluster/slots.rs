//! Which of the 16384 slots a key belongs to, and who serves it.

use crate::address::Address;
use crate::node::identity::{self, Node, text};
use crate::protocol::reply::Reply;

pub(crate) const SLOTS: usize = 16384;

/// The slot of `key`: of its hash tag, where it has one that is not empty.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    crc16(tag(key).unwrap_or(key)) % SLOTS as u16
}

/// What stands between the first `{` and the first `}` after it, unless that is nothing.
pub(crate) fn tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|byte| *byte == b'}')?;
    (close > 0).then(|| &rest[..close])
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// Why nobody can be asked for a slot.
pub(crate) type Reason = &'static str;

/// A cluster's answer to `CLUSTER SLOTS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotMap {
    /// First and last slot, and the primary that serves them; sorted.
    pub(crate) ranges: Vec<(u16, u16, Result<Node, Reason>)>,
    pub(crate) replicas: Vec<Node>,
}

impl SlotMap {
    /// Reads the answer that `from` gave. A row that cannot be used leaves the others alone.
    pub(crate) fn parse(reply: &Reply, from: &Address) -> Option<Self> {
        let Reply::Array(rows) = reply else { return None };
        let mut map = Self::default();
        for row in rows {
            let Reply::Array(row) = row else { continue };
            let [Reply::Int(first), Reply::Int(last), nodes @ ..] = &row[..] else { continue };
            let (Some(first), Some(last)) = (slot(*first), slot(*last)) else { continue };
            let primary = nodes.first().map_or(Err(NO_NODE), |primary| node(primary, from));
            map.ranges.push((first, last, primary));
            let replicas = nodes.iter().skip(1);
            map.replicas.extend(replicas.filter_map(|replica| node(replica, from).ok()));
        }
        map.ranges.sort_by_key(|(first, ..)| *first);
        map.replicas.sort_by_key(|replica| replica.address.to_string());
        map.replicas.dedup();
        Some(map)
    }

    /// Who serves what, in the fewest ranges. Nodes that say the same need not cut it alike.
    pub(crate) fn served(&self) -> Vec<(u16, u16, Node)> {
        let mut served: Vec<(u16, u16, Node)> = Vec::new();
        for (first, last, node) in &self.ranges {
            let Ok(node) = node else { continue };
            match served.last_mut() {
                Some((_, end, before)) if end.checked_add(1) == Some(*first) && before == node => {
                    *end = *last;
                }
                _ => served.push((*first, *last, node.clone())),
            }
        }
        served
    }

    /// All nodes that it names.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.ranges.iter().filter_map(|(.., node)| node.as_ref().ok()).chain(&self.replicas)
    }
}

const NO_NODE: Reason = "its row of CLUSTER SLOTS names no node";

fn slot(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|slot| usize::from(*slot) < SLOTS)
}

fn node(node: &Reply, from: &Address) -> Result<Node, Reason> {
    let Reply::Array(node) = node else { return Err(NO_NODE) };
    let [host, Reply::Int(port), more @ ..] = &node[..] else { return Err(NO_NODE) };
    let host = match (host, text(host)) {
        // The node that answers does not know under which address it is reached.
        (Reply::Nil, _) | (_, Some("")) => from.host(),
        (_, Some("?")) => more
            .get(1)
            .and_then(|metadata| ["ip", "hostname"].iter().find_map(|name| find(metadata, name)))
            .ok_or("its node announces no host")?,
        (_, Some(host)) => host,
        (_, None) => return Err(NO_NODE),
    };
    let port = match u16::try_from(*port) {
        Ok(0) => return Err("its node announces no port for connections of this kind (use_tls)"),
        Ok(port) => port,
        Err(_) => return Err("its node announces a port that does not exist"),
    };
    Ok(Node { address: Address::new(host, port), id: more.first().and_then(identity::id) })
}

/// A field of a node's metadata: a map, or an array of names and values.
fn find<'a>(metadata: &'a Reply, name: &str) -> Option<&'a str> {
    let value = match metadata {
        Reply::Map(fields) => {
            fields.iter().find(|(field, _)| text(field) == Some(name)).map(|(_, value)| value)
        }
        Reply::Array(fields) => {
            fields.chunks_exact(2).find(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1])
        }
        _ => None,
    };
    text(value?).filter(|value| !matches!(*value, "" | "?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_agree_with_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [(&b"foo"[..], 12182), (b"bar", 5061), (b"", 0), (b"123456789", 12739)] {
            assert_eq!(slot_of(key), slot, "{key:?}");
        }
    }

    #[test]
    fn only_a_tag_that_is_not_empty_counts() {
        for (key, tag_of) in [
            (&b"{user}:a"[..], Some(&b"user"[..])),
            (b"x{user}y{z}", Some(b"user")),
            (b"{a}b}", Some(b"a")),
            (b"{a}b}:lock", Some(b"a")),
            (b"{{a}}", Some(b"{a")),
            (b"{}a", None),
            (b"a{}{b}", None),
            (b"{a", None),
            (b"a}b", None),
            (b"}{a}", Some(b"a")),
            (b"", None),
        ] {
            assert_eq!(tag(key), tag_of, "{key:?}");
        }
        assert_eq!(slot_of(b"{a}b}"), slot_of(b"a"));
        assert_ne!(slot_of(b"a}b"), slot_of(b"a"));
    }

    fn bulk(text: &str) -> Reply {
        Reply::BulkString(text.as_bytes().to_vec().into())
    }

    fn node(host: Reply, port: i64, id: &str, metadata: Reply) -> Reply {
        Reply::Array(vec![host, Reply::Int(port), bulk(id), metadata])
    }

    fn row(first: i64, last: i64, nodes: impl IntoIterator<Item = Reply>) -> Reply {
        Reply::Array([Reply::Int(first), Reply::Int(last)].into_iter().chain(nodes).collect())
    }

    fn known(host: &str, port: u16, id: &str) -> Node {
        Node { address: Address::new(host, port), id: Some(id.into()) }
    }

    fn parse(rows: Vec<Reply>) -> SlotMap {
        SlotMap::parse(&Reply::Array(rows), &Address::new("here", 9)).unwrap()
    }

    #[test]
    fn reads_primaries_and_replicas() {
        let map = parse(vec![
            row(100, 16383, [node(bulk("b"), 2, "two", Reply::Nil)]),
            row(
                0,
                99,
                [node(Reply::Nil, 1, "one", Reply::Nil), node(bulk("c"), 3, "three", Reply::Nil)],
            ),
        ]);
        let ranges =
            vec![(0, 99, Ok(known("here", 1, "one"))), (100, 16383, Ok(known("b", 2, "two")))];
        assert_eq!(map, SlotMap { ranges, replicas: vec![known("c", 3, "three")] });
        assert_eq!(SlotMap::parse(&Reply::Nil, &Address::new("here", 9)), None);
    }

    #[test]
    fn a_row_that_cannot_be_used_leaves_the_others_alone() {
        let good = || node(bulk("a"), 1, "one", Reply::Nil);
        let map = parse(vec![
            row(0, 16384, [good()]),
            row(-1, 2, [good()]),
            Reply::Nil,
            row(7, 7, []),
            row(8, 8, [Reply::Int(1)]),
            row(9, 9, [node(bulk("a"), 0, "one", Reply::Nil)]),
            row(10, 10, [node(bulk("a"), 65_536, "one", Reply::Nil)]),
            row(11, 11, [node(bulk("?"), 1, "one", Reply::Array(Vec::new()))]),
            row(12, 12, [good()]),
        ]);
        assert_eq!(map.ranges.len(), 6);
        let (served, unserved): (Vec<_>, Vec<_>) =
            map.ranges.into_iter().partition(|(.., node)| node.is_ok());
        assert_eq!(served, [(12, 12, Ok(known("a", 1, "one")))]);
        assert_eq!(
            unserved.iter().map(|(first, ..)| *first).collect::<Vec<_>>(),
            [7, 8, 9, 10, 11]
        );
    }

    #[test]
    fn an_unknown_host_is_looked_up_in_the_metadata() {
        let map_of = |name, value| Reply::Map(vec![(bulk(name), bulk(value))]);
        let array_of = |name, value| Reply::Array(vec![bulk(name), bulk(value)]);
        let at = |host: Reply, metadata| {
            let map = parse(vec![row(0, 0, [node(host, 1, "one", metadata)])]);
            map.ranges[0].2.clone().map(|node| node.address.host().to_owned())
        };
        let unknown = || bulk("?");
        assert_eq!(at(unknown(), map_of("ip", "10.0.0.1")).as_deref(), Ok("10.0.0.1"));
        assert_eq!(at(unknown(), array_of("ip", "10.0.0.1")).as_deref(), Ok("10.0.0.1"));
        assert_eq!(at(unknown(), array_of("hostname", "a.example")).as_deref(), Ok("a.example"));
        assert!(at(unknown(), array_of("hostname", "")).is_err());
        assert!(at(unknown(), Reply::Nil).is_err());
        // These mean the node that answered, whatever else is known of it.
        assert_eq!(at(bulk(""), map_of("ip", "10.0.0.1")).as_deref(), Ok("here"));
        assert_eq!(at(Reply::Nil, map_of("ip", "10.0.0.1")).as_deref(), Ok("here"));
    }
}
