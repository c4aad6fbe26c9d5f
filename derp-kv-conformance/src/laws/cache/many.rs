use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use derp_kv_core::{Cache, Error, GuardedGet, KvStore};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::{HOUR, LATE, STALE, TTL, options, soon};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::input::Blob;
use crate::laws::expect;
use crate::laws::helpers::{Gate, until_absent};
use crate::violation::{Violation, ensure, ensure_eq};

/// What each computation was asked for.
#[derive(Clone, Debug, Default)]
struct Calls(Arc<Mutex<Vec<Vec<String>>>>);

impl Calls {
    fn add(&self, keys: &[String]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(keys.to_vec());
    }

    /// What was asked for since it was last looked at.
    fn take(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn computed(key: &str) -> String {
    format!("computed {key}")
}

/// Asks for all keys, and computes what is missing.
async fn get_many(
    cache: &Cache<Store, String>,
    keys: &[String],
    calls: &Calls,
) -> Result<Vec<String>, Violation> {
    let calls = calls.clone();
    let values = cache.get_many(keys, move |missing: Vec<String>| {
        calls.add(&missing);
        async move { Ok::<_, Error>(missing.iter().map(|key| computed(key)).collect()) }
    });
    Ok(soon("a caller of many keys", values).await??)
}

/// A value that is there before.
#[derive(Clone, Copy, Debug)]
enum There {
    Fresh,
    Stale,
}

/// The keys of a call, what of them is there, and whether stale values are served.
#[derive(Clone, Debug)]
struct Batch {
    keys: Vec<String>,
    there: BTreeMap<String, There>,
    stale: bool,
}

fn batch() -> impl Strategy<Value = Batch> {
    let key = (0..12_u8).prop_map(|number| format!("key {number}"));
    let there = prop_oneof![2 => Just(There::Fresh), 1 => Just(There::Stale)];
    (vec(key.clone(), 0..20), btree_map(key, there, 0..8), any::<bool>())
        .prop_map(|(keys, there, stale)| Batch { keys, there, stale })
}

impl Batch {
    /// The distinct keys that are wanted and there, or not.
    fn wanted(&self, which: impl Fn(Option<&There>) -> bool) -> Vec<String> {
        let mut known = BTreeSet::new();
        let distinct = self.keys.iter().filter(|key| known.insert(*key));
        distinct.filter(|key| which(self.there.get(*key))).cloned().collect()
    }

    async fn check(&self, kv: &Store, handle: Store) -> Result<(), Violation> {
        let (options, kept) = if self.stale {
            (options(), TTL + STALE)
        } else {
            (GuardedGet::new(TTL).lock_ttl(HOUR), TTL)
        };
        for (key, there) in &self.there {
            let left = match there {
                There::Fresh => kept,
                There::Stale => HOUR,
            };
            kv.set(format!("many:{key}").as_bytes(), b"\"there\"", Some(left)).await?;
        }
        let (cache, calls) = (Cache::new(handle, "many:", options), Calls::default());
        let values = get_many(&cache, &self.keys, &calls).await?;
        let expected = self.keys.iter().map(|key| match self.there.get(key) {
            Some(_) => "there".to_owned(),
            None => computed(key),
        });
        ensure_eq!(values, expected.collect::<Vec<_>>(), "the values, in the order of their keys,");
        ensure!(cache.drain(LATE).await, "a computation has not ended after {LATE:?}");
        let missing = self.wanted(|there| there.is_none());
        let stale = self.wanted(|there| self.stale && matches!(there, Some(There::Stale)));
        let each = [missing.clone(), stale.clone()].into_iter().filter(|keys| !keys.is_empty());
        let mut asked = calls.take();
        asked.sort();
        let mut expected: Vec<_> = each.collect();
        expected.sort();
        ensure_eq!(asked, expected, "what the computations were asked for");
        for key in missing.iter().chain(&stale) {
            let json = format!("\"{}\"", computed(key)).into_bytes();
            expect(kv, format!("many:{key}").as_bytes(), &Blob(json), Some(kept)).await?;
        }
        get_many(&cache, &self.keys, &calls).await?;
        ensure_eq!(calls.take(), Vec::<Vec<String>>::new(), "what is computed again");
        Ok(())
    }
}

fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Two calls that want some of the same keys, the second while the first one computes.
async fn overlap(
    kv: &Store,
    first: &Store,
    second: &Store,
    number: usize,
) -> Result<(), Violation> {
    let prefix = format!("overlap {number}:");
    let caches =
        [first, second].map(|kv| Cache::<_, String>::new(kv.clone(), prefix.clone(), options()));
    let (gate, calls) = (Gate::default(), [Calls::default(), Calls::default()]);
    let wanted = [keys(&["a", "b", "c", "d"]), keys(&["e", "d", "c", "f", "d"])];
    let older = tokio::spawn({
        let (cache, wanted, gate, calls) =
            (caches[0].clone(), wanted[0].clone(), gate.clone(), calls[0].clone());
        async move {
            let work = move |missing: Vec<String>| {
                calls.add(&missing);
                let gate = gate.clone();
                async move {
                    gate.pass().await;
                    Ok::<_, Error>(missing.iter().map(|key| computed(key)).collect())
                }
            };
            cache.get_many(&wanted, work).await
        }
    });
    soon("a computation of many keys", gate.begun.notified()).await?;
    let newer = tokio::spawn({
        let (cache, wanted, calls) = (caches[1].clone(), wanted[1].clone(), calls[1].clone());
        async move { get_many(&cache, &wanted, &calls).await }
    });
    // It surely waits for the other one by then.
    tokio::time::sleep(super::PAUSE * 2).await;
    gate.open.notify_one();
    for (values, keys) in [
        (soon("the first caller", older).await???, &wanted[0]),
        (soon("the second caller", newer).await???, &wanted[1]),
    ] {
        let expected: Vec<_> = keys.iter().map(|key| computed(key)).collect();
        ensure_eq!(values, expected, "the values of a caller among two");
    }
    let asked = calls.map(|calls| calls.take());
    let expected = [vec![wanted[0].clone()], vec![keys(&["e", "f"])]];
    ensure_eq!(asked, expected, "what two callers compute whose keys overlap");
    for key in ["a", "b", "c", "d", "e", "f"] {
        until_absent(kv, format!("{prefix}{key}:lock").as_bytes()).await?;
    }
    Ok(())
}

pub(crate) fn computes_many_together(bench: &Bench<'_>) -> LawResult {
    bench.pausing_property(batch(), async |scene, batch| {
        let handle = scene.handles(1).await?.remove(0);
        batch.check(&scene.store, handle).await
    })?;
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        for (number, (first, second)) in [(0, 1), (1, 0), (0, 0)].into_iter().enumerate() {
            overlap(&scene.store, &handles[first], &handles[second], number).await?;
        }
        Ok(())
    })
}
