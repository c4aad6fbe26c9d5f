mod apart;
mod families;
mod lengths;
mod long;
mod siblings;
mod sidecars;

use std::collections::BTreeMap;

use derp_kv_core::KvStore;
use proptest::collection::vec;

use crate::bench::{Bench, LawResult};
use crate::history::histories;
use crate::input::{Blob, distinct_keys, key, lasting, long_ttl, value};
use crate::laws::{all_keys, expect};
use crate::model::play;
use crate::violation::{ensure, ensure_eq};

pub(crate) use apart::keys_are_told_apart;
pub(crate) use long::{long_keys, too_long_keys_are_refused};

pub(crate) fn reads_your_writes(bench: &Bench<'_>) -> LawResult {
    bench.property(histories(60, long_ttl(), None), async |scene, history| {
        play(scene, &scene.store, b"", &history).await
    })
}

pub(crate) fn any_bytes(bench: &Bench<'_>) -> LawResult {
    bench.property(vec((key(), value()), 1..8), async |scene, items| {
        let kv = &scene.store;
        let mut written = BTreeMap::new();
        for (key, value) in &items {
            kv.set(key, value, None).await?;
            ensure_eq!(read(kv, key).await?, Some(value.clone()), "{key:?} after set");
            written.insert(key, value);
        }
        for (key, value) in written {
            ensure_eq!(read(kv, key).await?, Some(value.clone()), "{key:?} after all sets");
            ensure!(kv.compare_and_set(key, value, b"", None).await?, "{key:?} is not {value:?}");
            ensure_eq!(read(kv, key).await?, Some(Blob(Vec::new())), "{key:?} after a swap");
            ensure!(kv.delete(key).await?, "{key:?} could not be deleted");
            ensure!(kv.set_nx(key, value, None).await?, "{key:?} could not be set again");
            ensure_eq!(read(kv, key).await?, Some(value.clone()), "{key:?} after set_nx");
        }
        Ok(())
    })?;
    bench.scenario(async |scene| {
        lengths::any_length_of_value(&scene.store).await?;
        lengths::any_length_of_key(&scene.store).await
    })
}

pub(crate) fn missing_is_not_an_error(bench: &Bench<'_>) -> LawResult {
    let inputs = (distinct_keys(1..6), value(), long_ttl());
    bench.property(inputs, async |scene, (keys, value, ttl)| {
        let kv = &scene.store;
        for key in &keys {
            ensure_eq!(kv.get(key).await?, None, "get");
            ensure_eq!(kv.get_with_ttl(key).await?, None, "get_with_ttl");
            ensure_eq!(kv.exists(key).await?, false, "exists");
            ensure_eq!(kv.ttl(key).await?, None, "ttl");
            ensure_eq!(kv.delete(key).await?, false, "delete");
            ensure_eq!(kv.expire(key, ttl).await?, false, "expire");
            ensure_eq!(kv.compare_and_set(key, &value, &value, None).await?, false, "swap");
            ensure_eq!(kv.compare_and_delete(key, &value).await?, false, "compare_and_delete");
        }
        let slices: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
        ensure_eq!(kv.mget(&slices).await?, vec![None; keys.len()], "mget");
        ensure_eq!(kv.delete_many(&slices).await?, 0, "delete_many");
        let left = all_keys(kv, b"").await?;
        ensure_eq!(left, Vec::<bytes::Bytes>::new(), "what a scan finds on an empty keyspace");
        Ok(())
    })
}

pub(crate) fn exists_agrees_with_get(bench: &Bench<'_>) -> LawResult {
    let written = proptest::option::of((value(), lasting()));
    bench.property(vec((key(), written), 1..8), async |scene, steps| {
        let kv = &scene.store;
        for (key, written) in &steps {
            match written {
                Some((value, ttl)) => kv.set(key, value, *ttl).await?,
                None => drop(kv.delete(key).await?),
            }
            let present = written.is_some();
            ensure_eq!(kv.exists(key).await?, present, "exists, of {key:?}");
            ensure_eq!(kv.get(key).await?.is_some(), present, "a value found, of {key:?}");
        }
        // Nothing is a value too.
        kv.set(b"empty", b"", None).await?;
        ensure!(kv.exists(b"empty").await?, "exists, of a key with the empty value, is false");
        Ok(())
    })
}

pub(crate) fn set_replaces(bench: &Bench<'_>) -> LawResult {
    let writes = vec((value(), lasting()), 2..6);
    bench.property((key(), writes), async |scene, (key, writes)| {
        let kv = &scene.store;
        for (value, ttl) in &writes {
            kv.set(&key, value, *ttl).await?;
            expect(kv, &key, value, *ttl).await?;
        }
        Ok(())
    })
}

pub(crate) fn delete_reports_presence(bench: &Bench<'_>) -> LawResult {
    bench.property((distinct_keys(1..6), value()), async |scene, (keys, value)| {
        let kv = &scene.store;
        let (kept, deleted) = keys.split_at(keys.len() / 2);
        for key in &keys {
            kv.set(key, &value, None).await?;
        }
        for key in deleted {
            ensure_eq!(kv.delete(key).await?, true, "delete of the present {key:?}");
            ensure_eq!(kv.delete(key).await?, false, "delete of the deleted {key:?}");
            ensure_eq!(kv.get(key).await?, None, "the deleted {key:?}");
        }
        for key in kept {
            ensure!(kv.exists(key).await?, "{key:?} went with another key");
        }
        Ok(())
    })
}

async fn read(kv: &impl KvStore, key: &[u8]) -> derp_kv_core::Result<Option<Blob>> {
    Ok(kv.get(key).await?.map(|value| Blob(value.into())))
}
