mod racing;
mod sizes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use derp_kv_core::{Expiry, KvStore};
use futures_util::TryStreamExt;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::bench::{Bench, LawResult, at_once};
use crate::input::{Blob, bytes, distinct_keys, key, key_bytes, lasting, long_ttl};
use crate::laws::fits;
use crate::violation::{ensure, ensure_eq};

pub(crate) use racing::racing_batches_all_succeed;
pub(crate) use sizes::any_size;

/// Batches, now and then larger than what a backend sends at once.
fn batch<S: Strategy + Clone>(items: S) -> impl Strategy<Value = Vec<S::Value>>
where
    S::Value: Clone,
{
    prop_oneof![15 => vec(items.clone(), 1..12), 1 => vec(items, 1_000..3_000)]
}

pub(crate) fn mget_keeps_order_and_repeats(bench: &Bench<'_>) -> LawResult {
    let asked = batch(prop_oneof![2 => key(), 1 => key_bytes()]);
    bench.property((distinct_keys(1..8), asked), async |scene, (present, asked)| {
        let kv = &scene.store;
        for (number, key) in present.iter().enumerate() {
            kv.set(key, number.to_string().as_bytes(), None).await?;
        }
        // Twice in one batch, and in another order.
        let asked: Vec<_> = asked.iter().chain(&present).chain(asked.iter().rev()).collect();
        let keys: Vec<&[u8]> = asked.iter().map(|key| &***key).collect();
        let values = kv.mget(&keys).await?;
        ensure_eq!(values.len(), keys.len(), "the number of answers");
        for (place, (key, value)) in asked.iter().zip(values).enumerate() {
            let expected = present.iter().position(|present| present == *key);
            let value = value.map(|value| Blob(value.into()));
            let expected = expected.map(|number| Blob(number.to_string().into_bytes()));
            ensure_eq!(value, expected, "answer {place} of {}, for {key:?},", keys.len());
        }
        Ok(())
    })
}

pub(crate) fn mset_last_wins(bench: &Bench<'_>) -> LawResult {
    bench.property((batch((key(), bytes())), lasting()), async |scene, (items, ttl)| {
        let kv = &scene.store;
        let slices: Vec<(&[u8], &[u8])> =
            items.iter().map(|(key, value)| (&**key, &**value)).collect();
        kv.mset(&slices, ttl).await?;
        let last: BTreeMap<_, _> = items.iter().map(|(key, value)| (key, value)).collect();
        for (key, value) in last {
            let found = kv.get(key).await?.map(|value| Blob(value.into()));
            ensure_eq!(found.as_ref(), Some(value), "{key:?}, of a batch of {},", items.len());
        }
        Ok(())
    })
}

pub(crate) fn mset_sets_ttl_with_value(bench: &Bench<'_>) -> LawResult {
    // Every key of a batch has its TTL afterwards, whatever it had before.
    bench.property(
        (batch((key(), bytes())), lasting(), long_ttl()),
        async |scene, (items, before, ttl)| {
            let kv = &scene.store;
            let slices: Vec<(&[u8], &[u8])> =
                items.iter().map(|(key, value)| (&**key, &**value)).collect();
            kv.mset(&slices[..slices.len() / 2], before).await?;
            kv.mset(&slices, Some(ttl)).await?;
            for key in items.iter().map(|(key, _)| key).collect::<BTreeSet<_>>() {
                let expiry = kv.ttl(key).await?;
                let fits = expiry.is_some_and(|expiry| fits(expiry, Some(ttl)));
                ensure!(fits, "{key:?} expires in {expiry:?}, with a TTL of {ttl:?}");
            }
            Ok(())
        },
    )?;
    // And nobody ever sees one without.
    bench.race(async |scene, round| {
        let keys: Vec<_> = (0..16).map(|key| format!("{round}:{key}")).collect();
        at_once(scene.handles(2).await?, |number, kv| {
            let keys = keys.clone();
            async move {
                let items: Vec<_> = keys.iter().map(|key| (key.as_bytes(), &b"v"[..])).collect();
                if number == 0 {
                    return Ok(kv.mset(&items, Some(Duration::from_secs(60))).await?);
                }
                for _ in 0..4 {
                    for key in &keys {
                        let seen = kv.ttl(key.as_bytes()).await?;
                        ensure!(seen != Some(Expiry::Never), "{key} was seen without a TTL");
                    }
                }
                Ok(())
            }
        })
        .await?;
        Ok(())
    })
}

pub(crate) fn delete_many_counts_distinct(bench: &Bench<'_>) -> LawResult {
    let asked = batch(prop_oneof![2 => key(), 1 => key_bytes()]);
    bench.property((distinct_keys(2..10), asked), async |scene, (present, asked)| {
        let kv = &scene.store;
        for key in &present {
            kv.set(key, b"v", None).await?;
        }
        // Half of what is there, twice, among others.
        let (deleted, _) = present.split_at(present.len() / 2);
        let asked: Vec<_> = deleted.iter().chain(&asked).chain(deleted).collect();
        let keys: Vec<&[u8]> = asked.iter().map(|key| &***key).collect();
        let gone: BTreeSet<_> = asked.iter().filter(|key| present.contains(key)).collect();
        let count = kv.delete_many(&keys).await?;
        ensure_eq!(count, gone.len() as u64, "the count, of {} keys asked for,", keys.len());
        for key in &present {
            let kept = !gone.contains(&key);
            ensure_eq!(kv.exists(key).await?, kept, "the presence of {key:?} afterwards");
        }
        Ok(())
    })
}

pub(crate) fn empty_does_nothing(bench: &Bench<'_>) -> LawResult {
    bench.property((distinct_keys(0..4), lasting()), async |scene, (present, ttl)| {
        let kv = &scene.store;
        for key in &present {
            kv.set(key, b"v", None).await?;
        }
        ensure_eq!(kv.mget(&[]).await?, Vec::<Option<bytes::Bytes>>::new(), "mget of nothing");
        kv.mset(&[], ttl).await?;
        ensure_eq!(kv.delete_many(&[]).await?, 0, "delete_many of nothing");
        let left: BTreeSet<_> = kv.scan(b"").try_collect().await?;
        ensure_eq!(left.len(), present.len(), "the number of keys afterwards");
        Ok(())
    })
}
