//! Which of the 16384 slots a key belongs to, and who serves it.

use redis::Value;

use crate::address::{Address, known_host};

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

/// A cluster's answer to `CLUSTER SLOTS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotMap {
    /// First and last slot, and the primary that serves them; sorted.
    pub(crate) ranges: Vec<(u16, u16, Address)>,
    pub(crate) replicas: Vec<Address>,
}

impl SlotMap {
    /// Reads the answer that `from` gave.
    pub(crate) fn parse(reply: &Value, from: &Address) -> Option<Self> {
        let Value::Array(rows) = reply else { return None };
        let mut map = Self::default();
        for row in rows {
            let Value::Array(row) = row else { return None };
            let [Value::Int(first), Value::Int(last), primary, replicas @ ..] = &row[..] else {
                return None;
            };
            let (first, last) = (slot(*first)?, slot(*last)?);
            if first > last {
                return None;
            }
            map.ranges.push((first, last, node(primary, from)?));
            map.replicas.extend(replicas.iter().filter_map(|replica| node(replica, from)));
        }
        map.ranges.sort_by_key(|(first, ..)| *first);
        map.replicas.sort_by_key(ToString::to_string);
        map.replicas.dedup();
        Some(map)
    }
}

fn slot(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|slot| usize::from(*slot) < SLOTS)
}

fn node(node: &Value, from: &Address) -> Option<Address> {
    let Value::Array(node) = node else { return None };
    let [host, Value::Int(port), ..] = &node[..] else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => "",
        _ => return None,
    };
    let port = u16::try_from(*port).ok().filter(|port| *port != 0)?;
    Some(Address::new(known_host(host, from), port))
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

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn reads_primaries_and_replicas() {
        let node = |host, port| Value::Array(vec![host, Value::Int(port), bulk("id")]);
        let reply = Value::Array(vec![
            Value::Array(vec![Value::Int(100), Value::Int(16383), node(bulk("b"), 2)]),
            Value::Array(vec![
                Value::Int(0),
                Value::Int(99),
                node(Value::Nil, 1),
                node(bulk("c"), 3),
            ]),
        ]);
        let map = SlotMap::parse(&reply, &Address::new("here", 9)).unwrap();
        let ranges = vec![(0, 99, Address::new("here", 1)), (100, 16383, Address::new("b", 2))];
        assert_eq!(map, SlotMap { ranges, replicas: vec![Address::new("c", 3)] });
    }

    #[test]
    fn refuses_what_is_no_map() {
        let here = Address::new("here", 9);
        let node = Value::Array(vec![bulk("a"), Value::Int(1)]);
        let row = |first, last| {
            Value::Array(vec![Value::Array(vec![
                Value::Int(first),
                Value::Int(last),
                node.clone(),
            ])])
        };
        for reply in [Value::Nil, row(0, 16384), row(-1, 2), row(5, 4)] {
            assert_eq!(SlotMap::parse(&reply, &here), None, "{reply:?}");
        }
    }
}
