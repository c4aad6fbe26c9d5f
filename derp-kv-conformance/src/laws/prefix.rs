use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use derp_kv_core::{Error, GuardedGet, KvStore, KvStoreExt, Prefixed};
use futures_util::future::try_join;
use proptest::prelude::*;
use tokio::sync::Notify;

use crate::bench::{Bench, LawResult, at_once};
use crate::history::histories;
use crate::input::{Blob, bytes, distinct_keys, key_bytes, long_ttl};
use crate::laws::{expect, scanned};
use crate::model::play;
use crate::violation::{Violation, ensure, ensure_eq};

pub(crate) fn isolates(bench: &Bench<'_>) -> LawResult {
    let inputs = (histories(30, long_ttl(), None), distinct_keys(1..6), bytes());
    bench.property(inputs, async |scene, (history, keys, value)| {
        let kv = &scene.store;
        let (ours, theirs) = (Prefixed::new(kv.clone(), "a*:"), Prefixed::new(kv.clone(), "a:"));
        for key in &keys {
            theirs.set(key, &value, None).await?;
            kv.set(&[b"raw", &key[..]].concat(), &value, None).await?;
        }
        play(scene, &ours, b"", &history).await?;
        for key in &keys {
            expect(&theirs, key, &value, None).await?;
            expect(kv, &[b"raw", &key[..]].concat(), &value, None).await?;
        }
        let found = scanned(&theirs, b"").await?;
        ensure_eq!(found, keys.into_iter().collect(), "what the other tenant finds");
        Ok(())
    })
}

pub(crate) fn scan_strips(bench: &Bench<'_>) -> LawResult {
    let prefix = prop_oneof![key_bytes(), Just(Blob(Vec::new()))];
    bench.property((prefix, distinct_keys(1..12)), async |scene, (prefix, keys)| {
        let kv = &scene.store;
        let tenant = Prefixed::new(kv.clone(), &*prefix);
        for key in &keys {
            tenant.set(key, b"v", None).await?;
            let under = [&prefix[..], &key[..]].concat();
            ensure!(kv.exists(&under).await?, "{key:?} is not under {prefix:?}");
        }
        for begin in keys.iter().chain([&Blob(Vec::new())]) {
            let found = scanned(&tenant, begin).await?;
            let expected = keys.iter().filter(|key| key.starts_with(begin)).cloned().collect();
            ensure_eq!(found, expected, "what is found under {begin:?}");
        }
        Ok(())
    })
}

fn options() -> GuardedGet {
    GuardedGet::new(Duration::from_secs(60)).lock_ttl(Duration::from_secs(60))
}

/// Longer than a caller takes to begin its computation; one that never does has joined another's.
const MOMENT: Duration = Duration::from_millis(500);

/// Both tenants ask for one key at once, and each must get what it computes itself.
async fn compute_apart(
    ours: &(impl KvStore + Clone),
    theirs: &(impl KvStore + Clone),
) -> Result<(), Violation> {
    let begun = [Notify::new(), Notify::new()];
    let runs = AtomicU32::new(0);
    let compute = async |number: usize| {
        runs.fetch_add(1, Ordering::SeqCst);
        begun[number].notify_one();
        // Under way until the other one is, too.
        let _ = tokio::time::timeout(MOMENT, begun[1 - number].notified()).await;
        Ok::<_, Error>(number.to_string())
    };
    let options = options();
    let first = ours.guarded_get("one key", &options, || compute(0));
    let second = theirs.guarded_get("one key", &options, || compute(1));
    let (first, second) = try_join(first, second).await?;
    ensure_eq!((&*first, &*second), (&b"0"[..], &b"1"[..]), "each tenant's value");
    ensure_eq!(runs.into_inner(), 2, "the number of computations");
    Ok(())
}

/// A handle made for each request comes to the computation that another such handle began.
async fn compute_together<S: KvStore + Clone>(kv: &S) -> Result<(), Violation> {
    const CALLERS: usize = 200;
    let runs = Arc::new(AtomicU32::new(0));
    let requests = (0..CALLERS).map(|_| Prefixed::new(kv.clone(), "c:"));
    let values = at_once(requests, |_, tenant| {
        let runs = runs.clone();
        async move {
            let compute = || async {
                tokio::time::sleep(MOMENT).await;
                Ok::<_, Error>(runs.fetch_add(1, Ordering::SeqCst).to_string())
            };
            Ok(tenant.guarded_get("one key", &options(), compute).await?)
        }
    })
    .await?;
    let computed = runs.load(Ordering::SeqCst);
    ensure_eq!(computed, 1, "the number of computations of one tenant's {CALLERS} requests");
    let wrong = values.iter().find(|value| **value != "0");
    ensure_eq!(wrong, None, "a value that nobody computed");
    Ok(())
}

pub(crate) fn flights_are_its_own(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let kv = &scene.store;
        let tenants = ["a:", "b:"].map(|prefix| Prefixed::new(kv.clone(), prefix));
        compute_apart(&tenants[0], &tenants[1]).await?;
        // One tenant's key is another's prefix and key: what counts is the key in full.
        let nested = Prefixed::new(Prefixed::new(kv.clone(), "d:"), "e:");
        compute_apart(&nested, &Prefixed::new(kv.clone(), "e:")).await?;
        compute_together(kv).await?;
        for tenant in &tenants {
            let empty = tenant.flights().is_none_or(|flights| flights.is_empty());
            ensure!(empty, "a flight outlives its callers");
        }
        // Nor do stores that the harness opened apart, which may be views of one server.
        let (other, guard) = scene.another().await?;
        let apart = compute_apart(kv, &other).await;
        drop(other);
        // After its store: a server outlives its clients.
        drop(guard);
        apart
    })
}
