use std::collections::BTreeMap;
use std::time::Duration;

use derp_kv_core::{Cache, Error, KvStore};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::{HOUR, STALE, TTL, options};
use crate::bench::{Bench, LawResult};
use crate::input::{Blob, bytes, key_bytes};
use crate::laws::expect;
use crate::laws::helpers::{Runs, is_reserved};
use crate::violation::{Violation, ensure, ensure_eq};

/// Something that has a form in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    name: String,
    count: i64,
    most: u64,
    kind: Kind,
    tags: Vec<String>,
    flags: BTreeMap<String, Option<bool>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Sized(u8),
    Placed { at: i32 },
}

fn item() -> impl Strategy<Value = Item> + Clone {
    let kind = prop_oneof![
        Just(Kind::Plain),
        any::<u8>().prop_map(Kind::Sized),
        any::<i32>().prop_map(|at| Kind::Placed { at }),
    ];
    let flags = btree_map(".{0,8}", any::<Option<bool>>(), 0..3);
    let all = (any::<String>(), any::<i64>(), any::<u64>(), kind, vec(".{0,8}", 0..3), flags);
    all.prop_map(|(name, count, most, kind, tags, flags)| Item {
        name,
        count,
        most,
        kind,
        tags,
        flags,
    })
}

/// How long an absence is fresh.
const ABSENT: Duration = Duration::from_secs(20 * 60);

/// Checks what is stored of a value: its JSON, for its TTL.
async fn is_stored(kv: &impl KvStore, full: &[u8], value: &Option<Item>) -> Result<(), Violation> {
    let json = serde_json::to_vec(value)
        .map_err(|error| Violation::new(format!("{value:?} has no JSON: {error}")))?;
    let ttl = if value.is_some() { TTL } else { ABSENT };
    expect(kv, full, &Blob(json), Some(ttl + STALE)).await
}

pub(crate) fn keeps_typed_values(bench: &Bench<'_>) -> LawResult {
    let prefix = Blob(b"item:".to_vec());
    let full = move |key: &Blob| [&prefix[..], key].concat();
    let reserved = full.clone();
    let key = key_bytes().prop_filter("a reserved key", move |key| !is_reserved(&reserved(key)));
    let garbage = bytes()
        .prop_filter("a value", |bytes| serde_json::from_slice::<Option<Item>>(bytes).is_err());
    let value = proptest::option::weighted(0.7, item());
    let inputs = (key, value.clone(), value, proptest::option::of(garbage));
    bench.pausing_property(inputs, async |scene, (key, first, second, garbage)| {
        let full = full(&key);
        let handles = scene.handles(2).await?;
        let caches = handles.map_each();
        if let Some(garbage) = &garbage {
            scene.store.set(&full, garbage, Some(HOUR)).await?;
            for cache in &caches {
                ensure_eq!(cache.peek(&*key).await?, None, "what is seen in no JSON of the type");
            }
        }
        let runs = Runs::default();
        for cache in caches.iter().chain(&caches) {
            let (runs, value) = (runs.clone(), first.clone());
            let got = cache.get(&*key, move |_| async move {
                runs.begin();
                Ok::<_, Error>(value)
            });
            ensure_eq!(got.await?, first, "the value that was computed");
        }
        ensure_eq!(runs.count(), 1, "the number of computations, over four calls,");
        is_stored(&scene.store, &full, &first).await?;
        caches[0].put(&*key, &second).await?;
        is_stored(&scene.store, &full, &second).await?;
        for cache in &caches {
            ensure_eq!(cache.peek(&*key).await?, Some(second.clone()), "the value that was put");
        }
        let removed = caches[1].invalidate(&*key).await?;
        ensure!(removed, "invalidate of a cached value is false");
        ensure_eq!(caches[0].peek(&*key).await?, None, "the invalidated value");
        Ok(())
    })
}

/// The same cache in each process.
trait MapEach {
    type Cache;

    fn map_each(self) -> Vec<Self::Cache>;
}

impl<S: KvStore + Clone> MapEach for Vec<S> {
    type Cache = Cache<S, Option<Item>>;

    fn map_each(self) -> Vec<Self::Cache> {
        let cache = |kv| Cache::new(kv, "item:", options()).absent_ttl(ABSENT);
        self.into_iter().map(cache).collect()
    }
}
