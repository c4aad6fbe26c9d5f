use std::collections::BTreeSet;

use bytes::Bytes;
use derp_kv_core::{
    Counter, Dedup, Error, ErrorKind, Expiry, GuardedGet, Idempotency, KvStore, KvStoreExt, Lock,
    Processed, RateLimit, Result,
};
use futures_util::TryStreamExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{LONG, RESERVED_BEGINNINGS, RESERVED_ENDS, Runs};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::input::key_bytes;
use crate::violation::{ensure, ensure_eq};

/// Calls every helper that makes a key of `id`, and tells what each answers.
async fn all_helpers(kv: &Store, id: &[u8], runs: &Runs) -> Vec<(&'static str, Result<()>)> {
    let work = || async {
        runs.begin();
        Ok::<_, Error>(1_u64)
    };
    let limit = RateLimit::new(5, LONG);
    let idempotent = kv.idempotent_execute(id, &Idempotency::default(), work).await;
    let counted = kv.idempotent_execute_with(id, &Idempotency::default(), |_| work()).await;
    let once = Dedup::default().key_prefix("once");
    let processed = kv.process_once(id, &once, work).await;
    let given_up = kv.process_once_with(id, &once.give_up_after(1), |_| work()).await;
    vec![
        ("idempotent_execute", idempotent.map(drop)),
        ("idempotent_execute_with", counted.map(drop)),
        ("idempotent_forget", kv.idempotent_forget(id, &Idempotency::default()).await.map(drop)),
        ("process_once", processed.map(drop)),
        ("process_once_with", given_up.map(drop)),
        ("already_processed", kv.already_processed(id, &Dedup::default()).await.map(drop)),
        ("rate_limit", kv.rate_limit(id, &limit).await.map(drop)),
        ("rate_limit_peek", kv.rate_limit_peek(id, &limit).await.map(drop)),
        ("rate_limit_reset", kv.rate_limit_reset(id, &limit).await.map(drop)),
    ]
}

/// Calls every helper that has a key of the caller's own, and tells what each answers.
async fn all_caches(kv: &Store, key: &[u8], runs: &Runs) -> Vec<(&'static str, Result<()>)> {
    let work = || async {
        runs.begin();
        Ok::<_, Error>(Bytes::new())
    };
    let options = GuardedGet::new(LONG);
    vec![
        ("guarded_get", kv.guarded_get(key, &options, work).await.map(drop)),
        ("invalidate", kv.invalidate(key).await.map(drop)),
        ("refresh", kv.refresh(key, b"value", Some(LONG)).await),
    ]
}

pub(crate) fn lock_keys_are_reserved(bench: &Bench<'_>) -> LawResult {
    let ends = proptest::sample::select(&RESERVED_ENDS);
    let beginnings = proptest::sample::select(&RESERVED_BEGINNINGS);
    bench.property((key_bytes(), ends, beginnings), async |scene, (id, end, begin)| {
        let kv = &scene.store;
        let id = &id[..id.len().min(500)];
        let reserved = [id, end.as_bytes()].concat();
        let record = [begin.as_bytes(), id].concat();
        for key in [&reserved, &record] {
            kv.set(key, b"somebody's token or record", None).await?;
        }
        let runs = Runs::default();
        let mut refused = all_helpers(kv, &reserved, &runs).await;
        refused.extend(all_caches(kv, &reserved, &runs).await);
        refused.push(("try_lock", kv.try_lock(&reserved, LONG).await.map(drop)));
        refused.push(("lock", kv.lock(&reserved, &Lock::new(LONG)).await.map(drop)));
        refused.extend(all_caches(kv, &record, &runs).await);
        refused.extend(all_in_another_s_place(kv, &runs).await);
        for (helper, result) in refused {
            let kind = result.err().map(|error| error.kind());
            ensure_eq!(kind, Some(ErrorKind::InvalidArgument), "{helper}'s error");
        }
        ensure_eq!(runs.count(), 0, "the number of computations");
        let left: Vec<_> = kv.scan(b"").try_collect().await?;
        let left: BTreeSet<_> = left.into_iter().collect();
        let before = [reserved, record].map(Bytes::from).into_iter().collect();
        ensure_eq!(left, before, "what is there afterwards");
        Ok(())
    })
}

/// Calls helpers with the prefix at which another one keeps its records.
async fn all_in_another_s_place(kv: &Store, runs: &Runs) -> Vec<(&'static str, Result<()>)> {
    let work = || async {
        runs.begin();
        Ok::<_, Error>(1_u64)
    };
    let idempotent = Idempotency::default().key_prefix("derp:webhook");
    let dedup = Dedup::default().key_prefix("derp:ratelimit");
    let limit = RateLimit::new(5, LONG).key_prefix("derp:idempotency");
    vec![
        ("idempotent_execute", kv.idempotent_execute("id", &idempotent, work).await.map(drop)),
        ("idempotent_forget", kv.idempotent_forget("id", &idempotent).await.map(drop)),
        ("process_once", kv.process_once("id", &dedup, work).await.map(drop)),
        ("already_processed", kv.already_processed("id", &dedup).await.map(drop)),
        ("rate_limit", kv.rate_limit("id", &limit).await.map(drop)),
        ("rate_limit_peek", kv.rate_limit_peek("id", &limit).await.map(drop)),
        ("rate_limit_reset", kv.rate_limit_reset("id", &limit).await.map(drop)),
    ]
}

pub(crate) fn ids_are_bounded(bench: &Bench<'_>) -> LawResult {
    bench.property((1_usize..3_000, any::<u8>()), async |scene, (above, byte)| {
        let kv = &scene.store;
        let runs = Runs::default();
        for id in [&vec![byte; 1_024 + above][..], b""] {
            for (helper, result) in all_helpers(kv, id, &runs).await {
                let kind = result.err().map(|error| error.kind());
                let length = id.len();
                let expected = Some(ErrorKind::InvalidArgument);
                ensure_eq!(kind, expected, "{helper}'s error for an id of {length} bytes");
            }
        }
        ensure_eq!(runs.count(), 0, "the number of computations");
        for (helper, result) in all_helpers(kv, &[byte; 1_024], &runs).await {
            let kind = result.err().map(|error| error.kind());
            ensure_eq!(kind, None, "{helper}'s error for the longest id");
        }
        // A cache key is the caller's own, as long as the store takes it with its lock's ending.
        let longest = bench.profile.key_limit() - 64;
        let key = vec![byte; (1_024 + above).min(longest)];
        let work = || async { Ok::<_, Error>("value") };
        kv.guarded_get(&key, &GuardedGet::new(LONG), work).await?;
        ensure!(kv.exists(&key).await?, "a long cache key was not kept");
        Ok(())
    })
}

pub(crate) fn records_are_compatible(bench: &Bench<'_>) -> LawResult {
    bench.property(("[a-z0-9-]{1,20}", 1_u64..1_000_000), async |scene, (id, order)| {
        let kv = &scene.store;
        let id = &id[..];
        let work = || async { Ok::<_, Error>(json!({ "order": order })) };
        let options = Idempotency::default().status_code(201);
        kv.idempotent_execute(id, &options, work).await?;
        kv.rate_limit(id, &RateLimit::new(5, LONG).cost(3)).await?;
        kv.already_processed(id, &Dedup::default()).await?;
        kv.guarded_get(id, &GuardedGet::new(LONG), || async { Ok::<_, Error>("page") }).await?;
        let [record, counter, event] = ["derp:idempotency:", "derp:ratelimit:", "derp:webhook:"]
            .map(|prefix| [prefix.as_bytes(), id.as_bytes()].concat());
        let keys: Vec<_> = kv.scan(b"").try_collect().await?;
        let keys: BTreeSet<_> = keys.iter().map(|key| &key[..]).collect();
        let expected = [&record[..], &counter, &event, id.as_bytes()].into_iter().collect();
        ensure_eq!(keys, expected, "the keys that the helpers left");
        for key in &expected {
            let mortal = kv.ttl(key).await?.is_some_and(|expiry| expiry != Expiry::Never);
            ensure!(mortal, "`{}` never expires", key.escape_ascii());
        }
        let stored = kv.get(&record).await?.unwrap_or_default();
        let stored: Value = serde_json::from_slice(&stored).unwrap_or_default();
        ensure_eq!(stored, json!({ "status_code": 201, "body": { "order": order } }), "the record");
        let count = kv.get(&counter).await?.unwrap_or_default();
        ensure_eq!(Counter::parse(&count)?, 3, "the counter");
        // What others wrote is replayed, counted and recognised: spaces and further fields, too.
        let foreign = format!(
            "{{\"body\": {{\"order\": {order}}}, \"status_code\": 202, \"created_at\": 1.5}}"
        );
        kv.set(&record, foreign.as_bytes(), Some(LONG)).await?;
        kv.set(&counter, b"5", Some(LONG)).await?;
        kv.set(&event, b"processed", Some(LONG)).await?;
        let replay = kv.idempotent_execute(id, &options, work).await?;
        ensure_eq!((replay.status_code, replay.is_replay), (202, true), "the replay");
        ensure_eq!(replay.body, json!({ "order": order }), "the replayed body");
        let denied = kv.rate_limit(id, &RateLimit::new(5, LONG)).await?;
        ensure_eq!((denied.allowed, denied.count), (false, 6), "the answer of a full counter");
        ensure!(kv.already_processed(id, &Dedup::default()).await?, "the event is not recognised");
        let again = kv.process_once(id, &Dedup::default(), work).await?;
        ensure_eq!(again, Processed::Before, "what process_once says");
        Ok(())
    })
}
