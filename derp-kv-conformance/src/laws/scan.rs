mod literal;
mod pages;

use std::collections::BTreeSet;

use derp_kv_core::KvStore;
use futures_util::TryStreamExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::bench::{Bench, LawResult, at_once};
use crate::input::{Blob, distinct_keys, key_bytes, shown};
use crate::laws::{all_keys, scanned};
use crate::violation::{Violation, ensure, ensure_eq};

/// Keys and prefixes full of what a pattern would take for wildcards.
fn globs() -> impl Strategy<Value = Blob> + Clone {
    let alphabet = &b"ab*?[]^-\\{},!\0\xff"[..];
    prop_oneof![5 => vec(select(alphabet), 0..5).prop_map(Blob), 1 => key_bytes()]
}

pub(crate) use pages::covers_every_page;

pub(crate) fn prefix_is_literal(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let kv = &scene.store;
        let (keys, prefixes) = literal::keys_and_prefixes();
        let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b"v"[..])).collect();
        kv.mset(&items, None).await?;
        for prefix in &prefixes {
            let expected = keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
            let found = scanned(kv, prefix).await?;
            let missed: Vec<_> = found.symmetric_difference(&expected).collect();
            ensure!(missed.is_empty(), "under {prefix:?}, {} is missed or wrong", shown(&missed));
        }
        let items: Vec<_> = items.iter().map(|(key, _)| *key).collect();
        ensure_eq!(kv.delete_many(&items).await?, keys.len() as u64, "the number of keys deleted");
        Ok(())
    })?;
    let keys = proptest::collection::btree_set(globs(), 0..25);
    bench.property((keys, vec(globs(), 1..8)), async |scene, (keys, prefixes)| {
        let kv = &scene.store;
        for key in &keys {
            kv.set(key, b"v", None).await?;
        }
        for prefix in prefixes.iter().chain([&Blob(Vec::new())]).chain(&keys) {
            let expected: BTreeSet<_> =
                keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
            ensure_eq!(scanned(kv, prefix).await?, expected, "what is found under {prefix:?}");
        }
        Ok(())
    })
}

pub(crate) fn sees_every_stable_key(bench: &Bench<'_>) -> LawResult {
    bench.long_race(async |scene, round| {
        let stable: BTreeSet<_> =
            (0..60 + round * 97 % 900).map(|key| format!("{round}/stable/{key}")).collect();
        write(&scene.store, &stable).await?;
        let prefix = format!("{round}/");
        let scans = at_once(scene.handles(4).await?, |number, kv| {
            let prefix = prefix.clone();
            async move {
                if number > 0 {
                    return scanned(&kv, prefix.as_bytes()).await;
                }
                churn(&kv, &prefix).await?;
                Ok(BTreeSet::new())
            }
        })
        .await?;
        for found in scans.iter().filter(|found| !found.is_empty()) {
            let missed = stable.iter().find(|key| !found.contains(&Blob::from(key.as_bytes())));
            ensure_eq!(missed, None, "a key that was there all the time and not found");
        }
        let complete = scans.iter().filter(|found| !found.is_empty()).count();
        ensure_eq!(complete, 3, "the number of scans that found anything");
        // A consumer may write while it scans.
        let mut keys = scene.store.scan(prefix.as_bytes());
        let mut found = BTreeSet::new();
        let enough = 5 * (stable.len() + CHURNED as usize);
        while let Some(key) = keys.try_next().await? {
            scene.store.set(&[&key[..], b"+"].concat(), b"v", None).await?;
            found.insert(key);
            // What is written may show up, too, but not for ever.
            if found.len() > enough {
                break;
            }
        }
        drop(keys);
        let missed = stable.iter().find(|key| !found.contains(key.as_bytes()));
        let all = found.len() > enough || missed.is_none();
        ensure!(all, "{missed:?} was there all the time and not found");
        clear(&scene.store, prefix.as_bytes()).await
    })
}

pub(crate) fn never_invents(bench: &Bench<'_>) -> LawResult {
    let inputs = (distinct_keys(1..12), distinct_keys(0..6), globs());
    bench.property(inputs, async |scene, (keys, deleted, prefix)| {
        let kv = &scene.store;
        // Keys beside the prefix: it stands in the middle of one, and is cut short in the other.
        let inside = Blob([b"~", &prefix[..], b"~"].concat());
        let short = Blob(prefix[..prefix.len().saturating_sub(1)].to_vec());
        let keys: BTreeSet<_> = keys.into_iter().chain([inside, short]).collect();
        for key in keys.iter().chain(&deleted) {
            kv.set(key, b"v", None).await?;
        }
        for key in &deleted {
            kv.delete(key).await?;
        }
        for found in scanned(kv, &prefix).await? {
            ensure!(found.starts_with(&prefix), "{found:?} is found under {prefix:?}");
            let there = keys.contains(&found) && !deleted.contains(&found);
            ensure!(there, "{found:?} is found, and was deleted or never written");
        }
        Ok(())
    })?;
    bench.long_race(async |scene, round| {
        let prefix = format!("{round}/");
        let scans = at_once(scene.handles(3).await?, |number, kv| {
            let prefix = prefix.clone();
            async move {
                if number > 0 {
                    return scanned(&kv, prefix.as_bytes()).await;
                }
                churn(&kv, &prefix).await?;
                // Beside the prefix.
                churn(&kv, &format!("{prefix}~").replacen('/', "0", 1)).await?;
                Ok(BTreeSet::new())
            }
        })
        .await?;
        let churned: BTreeSet<_> =
            (0..CHURNED).map(|key| Blob(churned_key(&prefix, key).into_bytes())).collect();
        let invented = scans.iter().flatten().find(|key| !churned.contains(key));
        ensure_eq!(invented, None, "a key that is found and was never written");
        clear(&scene.store, prefix.as_bytes()).await?;
        let left = scanned(&scene.store, prefix.as_bytes()).await?;
        ensure_eq!(left, BTreeSet::new(), "what is found after all was deleted");
        Ok(())
    })
}

/// Scans that stand still at once: more than a store has connections for.
const HALTED: usize = 32;

/// Scans that are dropped one after the other: more than a store can afford to lose anything to.
const DROPPED: usize = 200;

/// No number of halted or dropped scans is in anybody's way.
async fn halts_nobody(kv: &impl KvStore) -> Result<(), Violation> {
    // More than the store reads ahead, so that the scans are not at their end.
    let keys: BTreeSet<_> = (0..1_500).map(|key| format!("halt/{key}")).collect();
    write(kv, &keys).await?;
    let mut halted = Vec::new();
    for _ in 0..HALTED {
        let mut scan = kv.scan(b"halt/");
        ensure!(scan.try_next().await?.is_some(), "a scan beside halted ones finds nothing");
        kv.set(b"beside", b"w", None).await?;
        halted.push(scan);
    }
    for _ in 0..DROPPED {
        let mut scan = kv.scan(b"halt/");
        ensure!(scan.try_next().await?.is_some(), "a scan after dropped ones finds nothing");
    }
    ensure!(kv.delete(b"beside").await?, "what was written beside halted scans is not there");
    for scan in &mut halted {
        ensure!(scan.try_next().await?.is_some(), "a halted scan does not go on");
    }
    drop(halted);
    clear(kv, b"halt/").await
}

pub(crate) fn ends_when_dropped(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| halts_nobody(&scene.store).await)?;
    bench.property((distinct_keys(1..20), 0_usize..20), async |scene, (keys, taken)| {
        let kv = &scene.store;
        for key in &keys {
            kv.set(key, b"v", None).await?;
        }
        // Dropped unpolled, in its middle, and at its end.
        drop(kv.scan(b""));
        let mut stream = kv.scan(b"");
        for _ in 0..taken {
            if stream.try_next().await?.is_none() {
                break;
            }
        }
        // While the scan stands still, others go on.
        for key in keys.iter().step_by(2) {
            kv.set(key, b"w", None).await?;
        }
        drop(stream);
        for (number, key) in keys.iter().enumerate() {
            let expected: &[u8] = if number % 2 == 0 { b"w" } else { b"v" };
            let value = kv.get(key).await?.map(|value| Blob(value.into()));
            ensure_eq!(value, Some(Blob::from(expected)), "{key:?} after the scan was dropped");
        }
        let all: BTreeSet<_> = keys.into_iter().collect();
        ensure_eq!(scanned(kv, b"").await?, all, "what the next scan finds");
        Ok(())
    })
}

const CHURNED: u32 = 300;

fn churned_key(prefix: &str, key: u32) -> String {
    format!("{prefix}churn/{key}")
}

/// Writes and deletes many keys, so that the store grows and shrinks.
async fn churn(kv: &impl KvStore, prefix: &str) -> Result<(), Violation> {
    for key in 0..CHURNED {
        kv.set(churned_key(prefix, key).as_bytes(), b"v", None).await?;
        if key % 3 == 0 {
            kv.delete(churned_key(prefix, key / 2).as_bytes()).await?;
        }
    }
    for key in 0..CHURNED {
        kv.delete(churned_key(prefix, key).as_bytes()).await?;
    }
    Ok(())
}

async fn write(kv: &impl KvStore, keys: &BTreeSet<String>) -> Result<(), Violation> {
    let items: Vec<_> = keys.iter().map(|key| (key.as_bytes(), &b"v"[..])).collect();
    Ok(kv.mset(&items, None).await?)
}

async fn clear(kv: &impl KvStore, prefix: &[u8]) -> Result<(), Violation> {
    let keys = all_keys(kv, prefix).await?;
    let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
    kv.delete_many(&keys).await?;
    Ok(())
}
