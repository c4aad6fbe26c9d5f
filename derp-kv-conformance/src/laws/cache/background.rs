use std::sync::{Arc, OnceLock};
use std::time::Duration;

use derp_kv_core::{Cache, Error, KvStore};
use tokio::time::{Instant, sleep};

use super::{LATE, PAUSE, STALE, TTL, is_unchanged, options, soon, stale_for_an_hour, store_stale};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::input::Blob;
use crate::laws::expect;
use crate::laws::helpers::{Gate, Runs, until_absent};
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

fn cache(kv: &Store) -> Cache<Store, u32> {
    Cache::new(kv.clone(), "", options())
}

/// A caller with nothing to do but to read, and what it gets.
async fn read(
    cache: &Cache<Store, u32>,
    key: &str,
    runs: &Runs,
    value: u32,
) -> Result<u32, Violation> {
    let runs = runs.clone();
    let got = cache.get(key, move |_| async move {
        runs.begin();
        Ok::<_, Error>(value)
    });
    Ok(soon("a caller", got).await??)
}

/// The caller that begins a refresh is answered while it goes on.
async fn nobody_waits(scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
    let caches: Vec<_> = handles.iter().map(cache).collect();
    store_stale(&scene.store, "k", b"1").await?;
    let (gate, replaced) = (Gate::default(), Arc::new(OnceLock::new()));
    let (inside, seen) = (gate.clone(), replaced.clone());
    let first = caches[0].get_detailed("k", move |stale| async move {
        let _ = seen.set(stale);
        inside.pass().await;
        Ok::<_, Error>(2)
    });
    let first = soon("the caller that begins a refresh", first).await??;
    ensure_eq!(first.value, 1, "what the caller that begins a refresh gets");
    stale_for_an_hour(first.freshness, first.source)?;
    soon("the refresh", gate.begun.notified()).await?;
    let drained = caches[0].drain(Duration::from_millis(1)).await;
    ensure!(!drained, "a cache says that nothing runs, and a refresh does");
    let runs = Runs::default();
    for cache in &caches {
        ensure_eq!(read(cache, "k", &runs, 3).await?, 1, "the value during a refresh");
    }
    gate.open.notify_one();
    ensure!(caches[0].drain(LATE).await, "a refresh has not ended after {LATE:?}");
    expect(&scene.store, b"k", &Blob(b"2".to_vec()), Some(TTL + STALE)).await?;
    ensure_eq!(replaced.get().copied().flatten(), Some(1), "the value that was to be replaced");
    for cache in &caches {
        ensure_eq!(read(cache, "k", &runs, 3).await?, 2, "the value after a refresh");
    }
    ensure_eq!(runs.count(), 0, "the number of computations beside the one refresh");
    until_absent(&scene.store, b"k:lock").await
}

/// Comes again and again, until the value is the new one.
async fn until_refreshed(
    caches: &[Cache<Store, u32>],
    key: &str,
    after: &str,
) -> Result<(), Violation> {
    let began = Instant::now();
    for cache in caches.iter().cycle() {
        if read(cache, key, &Runs::default(), 2).await? == 2 {
            break;
        }
        ensure!(began.elapsed() < LATE, "after {after}, nobody has refreshed for {LATE:?}");
        sleep(PAUSE).await;
    }
    Ok(())
}

/// A refresh that panics harms nobody, and is made again.
async fn survives_a_panic(scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
    let caches: Vec<_> = handles.iter().map(cache).collect();
    let written = store_stale(&scene.store, "panics", b"1").await?;
    let begun = Gate::default();
    let inside = begun.clone();
    let got = caches[0].get("panics", move |_| async move {
        inside.begun.notify_one();
        // A panic that prints nothing.
        std::panic::resume_unwind(Box::new("the refresh panics"));
        #[allow(unreachable_code)]
        Ok::<_, Error>(0)
    });
    ensure_eq!(soon("the caller of a refresh", got).await??, 1, "what the caller gets");
    soon("the refresh", begun.begun.notified()).await?;
    ensure!(caches[0].drain(LATE).await, "a refresh that panicked has not ended after {LATE:?}");
    is_unchanged(&scene.store, "panics", b"1", &written, scene.slack()).await?;
    until_refreshed(&caches, "panics", "a refresh that panicked").await
}

/// What runs in the background ends with the last handle of its cache.
async fn ends_with_its_cache(scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
    store_stale(&scene.store, "dropped", b"1").await?;
    let (dropped, gate) = (cache(&handles[0]), Gate::default());
    let (another, inside) = (dropped.clone(), gate.clone());
    let got = dropped.get("dropped", move |_| async move {
        inside.pass().await;
        Ok::<_, Error>(0)
    });
    ensure_eq!(soon("the caller of a refresh", got).await??, 1, "what the caller gets");
    soon("the refresh", gate.begun.notified()).await?;
    drop(dropped);
    ensure!(scene.store.exists(b"dropped:lock").await?, "a refresh ends with one of two handles");
    drop(another);
    until_absent(&scene.store, b"dropped:lock").await?;
    let caches: Vec<_> = handles.iter().map(cache).collect();
    until_refreshed(&caches, "dropped", "a cache that was dropped").await
}

pub(crate) fn refreshes_in_background(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(3).await?;
        nobody_waits(scene, &handles).await?;
        survives_a_panic(scene, &handles).await?;
        ends_with_its_cache(scene, &handles).await
    })
}
