//! Random histories of operations, and playing them on a store.

use std::collections::BTreeSet;
use std::time::Duration;

use derp_kv_core::{ErrorKind, Expiry, KvStore, Result};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::input::{self, Blob};
use crate::laws::all_keys;

/// One call, or time passing.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Get(Blob),
    GetWithTtl(Blob),
    Exists(Blob),
    Ttl(Blob),
    Mget(Vec<Blob>),
    Scan(Blob),
    Set(Blob, Blob, Option<Duration>),
    Mset(Vec<(Blob, Blob)>, Option<Duration>),
    Delete(Blob),
    DeleteMany(Vec<Blob>),
    Expire(Blob, Duration),
    SetNx(Blob, Blob, Option<Duration>),
    Incr(Blob, i64, Option<Duration>),
    CompareAndSet { key: Blob, expected: Blob, value: Blob, ttl: Option<Duration> },
    CompareAndDelete { key: Blob, expected: Blob },
    Elapse(Duration),
}

/// What a store answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Done,
    Flag(bool),
    Count(u64),
    Value(Option<Blob>),
    Dated(Option<(Blob, Expiry)>),
    Expiry(Option<Expiry>),
    Values(Vec<Option<Blob>>),
    Keys(BTreeSet<Blob>),
    Counter(i64, Expiry),
    Refused(ErrorKind),
}

/// Few keys, so that operations meet; one begins another, and none is kind to a store.
const KEYS: &[&[u8]] = &[b"a", b"a*", b"ab", b"", b"\xff\0"];

const VALUES: &[&[u8]] =
    &[b"", b"1", b"11", b"-7", b"x", b"X", b"x\0", b"\xff\xfe", b"9223372036854775807", b"01"];

/// Histories of up to `most` operations over `ttls`, some of which let time pass as in `pauses`.
pub(crate) fn histories(
    most: usize,
    ttls: impl Strategy<Value = Duration> + Clone + 'static,
    pauses: Option<BoxedStrategy<Duration>>,
) -> impl Strategy<Value = Vec<Op>> {
    vec(op(ttls, pauses), 1..most)
}

fn op(
    ttls: impl Strategy<Value = Duration> + Clone + 'static,
    pauses: Option<BoxedStrategy<Duration>>,
) -> impl Strategy<Value = Op> {
    let key = || select(KEYS).prop_map(Blob::from);
    let value = || select(VALUES).prop_map(Blob::from);
    let some_ttl = prop_oneof![12 => ttls, 1 => input::invalid_ttl()].boxed();
    let ttl = || proptest::option::of(some_ttl.clone());
    let by = prop_oneof![4 => -9_i64..10, 1 => any::<i64>()];
    let writes = prop_oneof![
        3 => (key(), value(), ttl()).prop_map(|(key, value, ttl)| Op::Set(key, value, ttl)),
        1 => (vec((key(), value()), 0..6), ttl()).prop_map(|(items, ttl)| Op::Mset(items, ttl)),
        1 => key().prop_map(Op::Delete),
        1 => vec(key(), 0..6).prop_map(Op::DeleteMany),
        3 => (key(), some_ttl.clone()).prop_map(|(key, ttl)| Op::Expire(key, ttl)),
        2 => (key(), value(), ttl()).prop_map(|(key, value, ttl)| Op::SetNx(key, value, ttl)),
        3 => (key(), by, ttl()).prop_map(|(key, by, ttl)| Op::Incr(key, by, ttl)),
        2 => (key(), value(), value(), ttl()).prop_map(|(key, expected, value, ttl)| {
            Op::CompareAndSet { key, expected, value, ttl }
        }),
        1 => (key(), value())
            .prop_map(|(key, expected)| Op::CompareAndDelete { key, expected }),
    ];
    let reads = prop_oneof![
        key().prop_map(Op::Get),
        key().prop_map(Op::GetWithTtl),
        key().prop_map(Op::Exists),
        key().prop_map(Op::Ttl),
        vec(key(), 0..6).prop_map(Op::Mget),
        key().prop_map(Op::Scan),
    ];
    match pauses {
        Some(pauses) => {
            prop_oneof![5 => writes, 5 => reads, 2 => pauses.prop_map(Op::Elapse)].boxed()
        }
        None => prop_oneof![writes, reads].boxed(),
    }
}

/// Makes the call under `prefix`, which keeps histories on one store apart. `None`: time passes.
pub(crate) async fn call<S: KvStore>(store: &S, prefix: &[u8], op: &Op) -> Option<Answer> {
    match answer(store, prefix, op).await {
        Ok(answer) => answer,
        Err(error) => Some(Answer::Refused(error.kind())),
    }
}

async fn answer<S: KvStore>(store: &S, prefix: &[u8], op: &Op) -> Result<Option<Answer>> {
    let under = |key: &Blob| [prefix, key].concat();
    let blob = |bytes: bytes::Bytes| Blob(bytes.into());
    Ok(Some(match op {
        Op::Get(key) => Answer::Value(store.get(&under(key)).await?.map(blob)),
        Op::GetWithTtl(key) => {
            let dated = store.get_with_ttl(&under(key)).await?;
            Answer::Dated(dated.map(|(value, expiry)| (blob(value), expiry)))
        }
        Op::Exists(key) => Answer::Flag(store.exists(&under(key)).await?),
        Op::Ttl(key) => Answer::Expiry(store.ttl(&under(key)).await?),
        Op::Mget(keys) => {
            let keys: Vec<_> = keys.iter().map(under).collect();
            let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
            Answer::Values(store.mget(&keys).await?.into_iter().map(|v| v.map(blob)).collect())
        }
        Op::Scan(key) => {
            let found = all_keys(store, &under(key)).await?;
            let strip = |key: bytes::Bytes| match key.strip_prefix(prefix) {
                Some(key) => Blob::from(key),
                None => blob(key),
            };
            Answer::Keys(found.into_iter().map(strip).collect())
        }
        Op::Set(key, value, ttl) => {
            store.set(&under(key), value, *ttl).await?;
            Answer::Done
        }
        Op::Mset(items, ttl) => {
            let keys: Vec<_> = items.iter().map(|(key, _)| under(key)).collect();
            let items: Vec<_> =
                keys.iter().zip(items).map(|(key, (_, value))| (&key[..], &**value)).collect();
            store.mset(&items, *ttl).await?;
            Answer::Done
        }
        Op::Delete(key) => Answer::Flag(store.delete(&under(key)).await?),
        Op::DeleteMany(keys) => {
            let keys: Vec<_> = keys.iter().map(under).collect();
            let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
            Answer::Count(store.delete_many(&keys).await?)
        }
        Op::Expire(key, ttl) => Answer::Flag(store.expire(&under(key), *ttl).await?),
        Op::SetNx(key, value, ttl) => Answer::Flag(store.set_nx(&under(key), value, *ttl).await?),
        Op::Incr(key, by, ttl) => {
            let counter = store.incr(&under(key), *by, *ttl).await?;
            Answer::Counter(counter.value, counter.expiry)
        }
        Op::CompareAndSet { key, expected, value, ttl } => {
            Answer::Flag(store.compare_and_set(&under(key), expected, value, *ttl).await?)
        }
        Op::CompareAndDelete { key, expected } => {
            Answer::Flag(store.compare_and_delete(&under(key), expected).await?)
        }
        Op::Elapse(_) => return Ok(None),
    }))
}
