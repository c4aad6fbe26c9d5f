//! Operations on many keys.

mod run;

use std::collections::HashMap;

use bytes::Bytes;
use derp_kv_core::{Error, Operation, Result, Ttl};
use redis::{Cmd, Value};

use crate::cluster::router::Router;
use crate::protocol::reply;
use crate::protocol::request::Request;
use run::{Batch, Kind};

/// Keys in one message.
const CHUNK_KEYS: usize = 512;
/// Bytes in one message, unless a single item is longer: small requests of other callers get
/// their turn in between.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// A key, and its value where the operation writes one.
type Item<'a> = (&'a [u8], &'a [u8]);

pub(crate) async fn mget(router: &Router, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
    let operation = Operation::Mget;
    let values = if is_one_call(router, keys) {
        let cmd = many("MGET", keys.iter().copied());
        let one_each = |reply| match reply {
            Value::Array(values) if values.len() == keys.len() => Ok(values),
            _ => Err(reply::unexpected()),
        };
        router.call(&Request::read(operation, keys[0], cmd), one_each).await?
    } else {
        let items = keys.iter().map(|key| (*key, &[][..])).collect();
        Batch { operation, kind: Kind::Get, items }.run(router).await?
    };
    let values = values.into_iter().map(reply::value).collect::<Result<_>>();
    values.map_err(|error| error.with_operation(operation))
}

pub(crate) async fn mset(
    router: &Router,
    items: &[(&[u8], &[u8])],
    ttl: Option<Ttl>,
) -> Result<()> {
    let batch = Batch {
        operation: Operation::Mset,
        kind: Kind::Set(ttl),
        items: distinct(items.iter().copied()),
    };
    batch.run(router).await.map(drop)
}

pub(crate) async fn delete_many(router: &Router, keys: &[&[u8]]) -> Result<u64> {
    let operation = Operation::DeleteMany;
    let replies = if is_one_call(router, keys) {
        // The server counts a key that is named twice once.
        let cmd = many("DEL", keys.iter().copied());
        vec![router.call(&Request::write(operation, keys[0], cmd), Ok).await?]
    } else {
        let items = distinct(keys.iter().map(|key| (*key, &[][..])));
        Batch { operation, kind: Kind::Delete, items }.run(router).await?
    };
    // The server has answered a write: whatever it meant, keys may be gone.
    sum(&replies, keys.len())
        .map_err(|error: Error| error.with_operation(operation).with_may_have_applied(true))
}

/// The sum of the counts of deleted keys, which cannot be more than there were to delete.
fn sum(replies: &[Value], keys: usize) -> Result<u64> {
    replies.iter().try_fold(0_u64, |sum, reply| {
        let count = u64::try_from(reply::integer(reply)?).ok();
        let sum = count.and_then(|count| sum.checked_add(count));
        sum.filter(|sum| *sum <= keys as u64).ok_or_else(reply::unexpected)
    })
}

/// Whether one command to one server does it all: a call like any other.
fn is_one_call(router: &Router, keys: &[&[u8]]) -> bool {
    !router.is_cluster()
        && (1..=CHUNK_KEYS).contains(&keys.len())
        && keys.iter().map(|key| key.len()).sum::<usize>() <= CHUNK_BYTES
}

/// One command for many keys: `MGET` or `DEL`.
fn many<'a>(name: &str, keys: impl Iterator<Item = &'a [u8]> + Clone) -> Cmd {
    let (count, bytes) =
        keys.clone().fold((0, 0), |(count, bytes), key| (count + 1, bytes + key.len()));
    let mut cmd = Cmd::with_capacity(count + 1, bytes + name.len());
    cmd.arg(name);
    for key in keys {
        cmd.arg(key);
    }
    cmd
}

/// Each key once, with its last value.
fn distinct<'a>(items: impl Iterator<Item = Item<'a>>) -> Vec<Item<'a>> {
    let mut distinct: Vec<Item<'_>> = Vec::new();
    let mut seen = HashMap::new();
    for (key, value) in items {
        let place = *seen.entry(key).or_insert_with(|| {
            distinct.push((key, value));
            distinct.len() - 1
        });
        distinct[place].1 = value;
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_counts_are_refused() {
        let count = |counts: &[i64]| {
            let replies: Vec<_> = counts.iter().copied().map(Value::Int).collect();
            sum(&replies, 3).ok()
        };
        assert_eq!(count(&[]), Some(0));
        assert_eq!(count(&[1, 0, 1]), Some(2));
        assert_eq!(count(&[3, 0, 0]), Some(3));
        assert_eq!(count(&[2, 2]), None);
        assert_eq!(count(&[-1, 1]), None);
        assert_eq!(count(&[i64::MAX; 3]), None);
    }

    #[test]
    fn of_a_repeated_key_the_last_value_is_kept() {
        let items: [Item<'_>; 4] = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"", b"4")];
        let distinct = distinct(items.into_iter());
        assert_eq!(distinct, [(&b"a"[..], &b"3"[..]), (b"b", b"2"), (b"", b"4")]);
    }
}
