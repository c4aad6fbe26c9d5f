//! What keeps keys apart: every call tried on all of them, where one that takes a key for another
//! answers with what that one has.

use std::collections::BTreeSet;
use std::time::Duration;

use derp_kv_core::KvStore;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::input::Blob;
use crate::laws::{fits, scanned};
use crate::violation::{Violation, ensure, ensure_eq};

/// Calls at once: keys that differ do not stand in each other's way.
const AT_ONCE: usize = 8;

/// A key and the number that all its values begin from.
struct Numbered<'k> {
    key: &'k Blob,
    number: usize,
}

impl Numbered<'_> {
    /// A value that no other key has, `round` by `round`; a decimal, so that it can be counted up.
    fn value(&self, round: usize) -> Vec<u8> {
        (round * 1_000_000 + self.number).to_string().into_bytes()
    }

    /// A TTL that no other key has, and that outlasts any test.
    fn ttl(&self) -> Duration {
        Duration::from_secs(3_600 * (1 + self.number as u64))
    }
}

/// Makes a call for each key of the families, for those of one family one after the other.
async fn each<'k, F>(
    families: &'k [Vec<Numbered<'k>>],
    call: impl Fn(&'k Numbered<'k>) -> F,
) -> Result<(), Violation>
where
    F: Future<Output = Result<(), Violation>>,
{
    let call = &call;
    let family = |keys: &'k Vec<Numbered<'k>>| async move {
        for numbered in keys {
            call(numbered).await?;
        }
        Ok(())
    };
    stream::iter(families).map(family).buffer_unordered(AT_ONCE).try_collect().await
}

/// Checks with one `mget` that each key has its value of `round`; `None`: that all are absent.
async fn check_all(
    kv: &impl KvStore,
    families: &[Vec<Numbered<'_>>],
    round: Option<usize>,
    after: &str,
) -> Result<(), Violation> {
    let all: Vec<_> = families.iter().flatten().collect();
    let keys: Vec<&[u8]> = all.iter().map(|numbered| &numbered.key[..]).collect();
    let values = kv.mget(&keys).await?;
    ensure_eq!(values.len(), keys.len(), "the number of answers after {after}");
    for (numbered, value) in all.iter().zip(values) {
        let value = value.map(|value| Blob(value.into()));
        let expected = round.map(|round| Blob(numbered.value(round)));
        ensure_eq!(value, expected, "{:?} after {after}", numbered.key);
    }
    Ok(())
}

/// Checks that each call tells all keys of the `families` apart, and above all those of one.
///
/// The keyspace is empty before and after.
pub(super) async fn tell_apart(kv: &impl KvStore, families: &[Vec<Blob>]) -> Result<(), Violation> {
    let mut count = 0;
    let numbered = |key| {
        count += 1;
        Numbered { key, number: count }
    };
    let mut numbered = numbered;
    let families: Vec<Vec<_>> =
        families.iter().map(|family| family.iter().map(&mut numbered).collect()).collect();
    let families = &families[..];
    let keys: Vec<&[u8]> = families.iter().flatten().map(|numbered| &numbered.key[..]).collect();
    writes_and_reads(kv, families, &keys).await?;
    batches_and_expiries(kv, families, &keys).await?;
    conditions(kv, families, &keys).await?;
    let left = scanned(kv, b"").await?;
    ensure_eq!(left, BTreeSet::new(), "what is there after all keys were deleted");
    Ok(())
}

async fn writes_and_reads(
    kv: &impl KvStore,
    families: &[Vec<Numbered<'_>>],
    keys: &[&[u8]],
) -> Result<(), Violation> {
    each(families, |it| async move { Ok(kv.set(it.key, &it.value(1), Some(it.ttl())).await?) })
        .await?;
    check_all(kv, families, Some(1), "each was set").await?;
    each(families, |it| async move {
        let value = kv.get(it.key).await?.map(|value| Blob(value.into()));
        ensure_eq!(value, Some(Blob(it.value(1))), "{:?}, read by get,", it.key);
        let Some((value, expiry)) = kv.get_with_ttl(it.key).await? else {
            return Err(Violation::new(format!("{:?} is absent to get_with_ttl", it.key)));
        };
        ensure_eq!(Blob(value.into()), Blob(it.value(1)), "{:?}, by get_with_ttl,", it.key);
        ensure!(fits(expiry, Some(it.ttl())), "{:?} expires in another key's time", it.key);
        let expiry = kv.ttl(it.key).await?;
        let fits = expiry.is_some_and(|expiry| fits(expiry, Some(it.ttl())));
        ensure!(fits, "{:?} expires in another key's time, by ttl", it.key);
        kv.wait_for_change(it.key, None, Duration::from_millis(1)).await;
        Ok(())
    })
    .await?;
    let expected: BTreeSet<_> = keys.iter().map(|key| Blob::from(*key)).collect();
    let found = scanned(kv, b"").await?;
    let invented = found.difference(&expected).next();
    ensure_eq!(invented, None, "a key that a scan yields and nobody wrote");
    let missed = expected.difference(&found).next();
    ensure_eq!(missed, None, "a key that a scan does not yield");
    each(families, |it| async move {
        ensure!(kv.delete(it.key).await?, "{:?} went with another key's deletion", it.key);
        Ok(())
    })
    .await?;
    check_all(kv, families, None, "each was deleted").await
}

async fn batches_and_expiries(
    kv: &impl KvStore,
    families: &[Vec<Numbered<'_>>],
    keys: &[&[u8]],
) -> Result<(), Violation> {
    let values: Vec<_> = families.iter().flatten().map(|numbered| numbered.value(2)).collect();
    let items: Vec<(&[u8], &[u8])> =
        keys.iter().zip(&values).map(|(key, value)| (*key, &value[..])).collect();
    kv.mset(&items, None).await?;
    check_all(kv, families, Some(2), "an mset of all").await?;
    each(families, |it| async move {
        ensure!(kv.expire(it.key, it.ttl()).await?, "{:?} is absent to expire", it.key);
        Ok(())
    })
    .await?;
    each(families, |it| async move {
        let found = kv.get_with_ttl(it.key).await?;
        let fits = found.is_some_and(|(_, expiry)| fits(expiry, Some(it.ttl())));
        ensure!(fits, "{:?} expires in the time that another key was given", it.key);
        let swapped = kv.compare_and_set(it.key, &it.value(2), &it.value(3), None).await?;
        ensure!(swapped, "{:?} had not its own value at a swap", it.key);
        Ok(())
    })
    .await?;
    check_all(kv, families, Some(3), "a swap of each").await?;
    let count = kv.delete_many(keys).await?;
    ensure_eq!(count, keys.len() as u64, "the number of keys that delete_many deleted");
    check_all(kv, families, None, "a delete_many of all").await
}

async fn conditions(
    kv: &impl KvStore,
    families: &[Vec<Numbered<'_>>],
    keys: &[&[u8]],
) -> Result<(), Violation> {
    each(families, |it| async move {
        ensure!(!kv.exists(it.key).await?, "{:?} exists with another key", it.key);
        let taken = kv.set_nx(it.key, &it.value(4), None).await?;
        ensure!(taken, "{:?} was taken by another key's set_nx", it.key);
        ensure!(kv.exists(it.key).await?, "{:?} was set and does not exist", it.key);
        Ok(())
    })
    .await?;
    check_all(kv, families, Some(4), "set_nx of each").await?;
    let half: Vec<_> = keys.iter().copied().step_by(2).collect();
    let count = kv.delete_many(&half).await?;
    ensure_eq!(count, half.len() as u64, "the number of every second key deleted");
    let other: Vec<_> = keys.iter().copied().skip(1).step_by(2).collect();
    let count = kv.delete_many(&other).await?;
    ensure_eq!(count, other.len() as u64, "the number of the keys left");
    each(families, |it| async move {
        let by = (5_000_000 + it.number) as i64;
        let counter = kv.incr(it.key, by, Some(it.ttl())).await?;
        ensure_eq!(counter.value, by, "the new counter {:?}", it.key);
        ensure!(fits(counter.expiry, Some(it.ttl())), "{:?} has another's expiry", it.key);
        Ok(())
    })
    .await?;
    check_all(kv, families, Some(5), "each was counted").await?;
    each(families, |it| async move {
        let deleted = kv.compare_and_delete(it.key, &it.value(5)).await?;
        ensure!(deleted, "{:?} had not its own value at a deletion", it.key);
        Ok(())
    })
    .await
}
