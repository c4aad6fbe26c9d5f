//! Operations on many keys.

mod run;

use std::collections::HashMap;

use bytes::Bytes;
use derp_kv_core::{Error, Operation, Result, Ttl};

use crate::cluster::router::Router;
use crate::protocol::reply::Reply;
use crate::protocol::request::Request;
use crate::protocol::shape;
use run::{Batch, CHUNK_BYTES, CHUNK_KEYS, Item, Kind, many};

pub(crate) async fn mget(router: &Router, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
    let operation = Operation::Mget;
    let values = if is_one_call(router, keys) {
        let args = many(b"MGET", keys.iter().copied());
        let one_each = |reply| match reply {
            Reply::Array(values) if values.len() == keys.len() => Ok(values),
            _ => Err(shape::unexpected()),
        };
        router.call(&Request::read(operation, keys[0], &args), one_each).await?
    } else {
        let items = keys.iter().map(|key| (*key, &[][..])).collect();
        Batch { operation, kind: Kind::Get, items }.run(router).await?
    };
    let values = values.into_iter().map(shape::value).collect::<Result<_>>();
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
    let one_connection = router.config().connections == 1;
    let replies = if one_connection && is_one_call(router, keys) {
        // The server counts a key that is named twice once.
        let args = many(b"DEL", keys.iter().copied());
        vec![router.call(&Request::write(operation, keys[0], &args), Ok).await?]
    } else {
        let items = distinct(keys.iter().map(|key| (*key, &[][..])));
        Batch { operation, kind: Kind::Delete, items }.run(router).await?
    };
    // The server has answered a write: whatever it meant, keys may be gone.
    sum(&replies, keys.len())
        .map_err(|error: Error| error.with_operation(operation).with_may_have_applied(true))
}

/// The sum of the counts of deleted keys, which cannot be more than there were to delete.
fn sum(replies: &[Reply], keys: usize) -> Result<u64> {
    replies.iter().try_fold(0_u64, |sum, reply| {
        let count = u64::try_from(shape::integer(reply)?).ok();
        let sum = count.and_then(|count| sum.checked_add(count));
        sum.filter(|sum| *sum <= keys as u64).ok_or_else(shape::unexpected)
    })
}

/// Whether one command to one server does it all: a call like any other.
fn is_one_call(router: &Router, keys: &[&[u8]]) -> bool {
    !router.is_cluster()
        && (1..=CHUNK_KEYS).contains(&keys.len())
        && keys.iter().map(|key| key.len()).sum::<usize>() <= CHUNK_BYTES
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
            let replies: Vec<_> = counts.iter().copied().map(Reply::Int).collect();
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
