use std::time::Duration;

use derp_kv_core::{Error, Expiry, Fill, GuardedGet, KvStore, KvStoreExt};
use tokio::task::JoinSet;

use super::{HOUR, NEW, OLD, PAUSE, STALE, is_unchanged, options, soon, store_stale};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::input::Blob;
use crate::laws::expect;
use crate::laws::helpers::{Gate, Runs, until_absent};
use crate::resolution;
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

/// A value's own TTL goes before that of the options.
async fn its_own_ttl(kv: &Store, handle: &Store) -> Result<(), Violation> {
    for (hours, stale) in [(6, false), (1, true), (9, true)] {
        let (key, ttl) = (format!("{hours} {stale}"), HOUR * hours);
        let options = if stale { options() } else { GuardedGet::new(HOUR * 3).lock_ttl(HOUR) };
        let fill = async || Ok::<_, Error>(Fill::new(NEW).ttl(ttl));
        ensure_eq!(handle.guarded_get(&key, &options, fill).await?, NEW, "the computed value");
        let kept = if stale { ttl + STALE } else { ttl };
        expect(kv, key.as_bytes(), &Blob(NEW.into()), Some(kept)).await?;
    }
    Ok(())
}

/// A value that is not to be kept goes to those who wait for it, and nowhere else.
async fn kept_nowhere(scene: &Scene<'_>, handle: &Store) -> Result<(), Violation> {
    let kv = &scene.store;
    for (what, fill) in
        [("unstored", Fill::unstored(NEW)), ("zero", Fill::new(NEW).ttl(Duration::ZERO))]
    {
        let unstored = async || Ok::<_, Error>(fill.clone());
        let missing = format!("{what} missing");
        let value = handle.guarded_get(&missing, &options(), unstored).await?;
        ensure_eq!(value, NEW, "the value that is not kept");
        ensure!(!kv.exists(missing.as_bytes()).await?, "a value is kept that says otherwise");
        until_absent(kv, format!("{missing}:lock").as_bytes()).await?;

        let stale = format!("{what} stale");
        let written = store_stale(kv, &stale, &OLD).await?;
        let value = handle.guarded_get(&stale, &options(), unstored).await?;
        ensure_eq!(value, NEW, "the refreshed value that is not kept");
        is_unchanged(kv, &stale, &OLD, &written, scene.slack()).await?;
        until_absent(kv, format!("{stale}:lock").as_bytes()).await?;
    }
    Ok(())
}

/// Those of one process who wait for a value that is not kept get it.
async fn waiters_get_it(handle: &Store) -> Result<(), Violation> {
    if handle.flights().is_none() {
        // Where callers share nothing, each computes in its turn.
        return Ok(());
    }
    let (gate, runs, mut callers) = (Gate::default(), Runs::default(), JoinSet::new());
    for number in 0..5 {
        let (kv, inside, runs) = (handle.clone(), gate.clone(), runs.clone());
        callers.spawn(async move {
            let work = || async {
                runs.begin();
                inside.pass().await;
                Ok::<_, Error>(Fill::unstored(NEW))
            };
            kv.guarded_get("waited for", &options(), work).await
        });
        if number == 0 {
            soon("a computation", gate.begun.notified()).await?;
        }
    }
    // They surely wait by then; who does not computes for itself.
    tokio::time::sleep(PAUSE * 5).await;
    gate.open.notify_one();
    let first = soon("one who waits for a value", callers.join_next()).await?;
    let Some(first) = first else { return Ok(()) };
    ensure_eq!(first??, NEW, "the value that is not kept");
    for _ in 1..5 {
        gate.open.notify_one();
        if let Some(value) = soon("one who waits for a value", callers.join_next()).await? {
            ensure_eq!(value??, NEW, "the value that is not kept, of one who waited");
        }
    }
    Ok(())
}

/// How many values show what jitter does: that none of them is shortened by more than a tenth of the
/// most happens by chance once in 10^16 times.
const JITTERED: u32 = 16;

/// Jitter shortens TTLs, by no more than was said.
async fn jitter_shortens(kv: &Store, handle: &Store) -> Result<(), Violation> {
    let ttl = HOUR * 10;
    let mut least = ttl;
    for number in 0..JITTERED {
        let key = format!("jitter {number}");
        let options = GuardedGet::new(ttl).stale(STALE).jitter(0.5).lock_ttl(HOUR);
        handle.guarded_get(&key, &options, async || Ok::<_, Error>(NEW)).await?;
        let Some(Expiry::In(left)) = kv.ttl(key.as_bytes()).await? else {
            return Err(Violation::new("a computed value is not kept for its TTL"));
        };
        // No case takes as long as a minute and a half.
        let most = resolution::most_left(ttl + STALE) + Duration::from_millis(1);
        let shortest = ttl / 2 + STALE - Duration::from_secs(90) - resolution::lateness();
        ensure!(
            (shortest..=most).contains(&left),
            "with a jitter of a half, a value with a TTL of {ttl:?} and a stale time of {STALE:?} is \
             kept for {left:?}"
        );
        least = least.min(left.saturating_sub(STALE));
    }
    ensure!(
        least < ttl / 20 * 19,
        "with a jitter of a half, {JITTERED} values are kept for {least:?} of {ttl:?} and more"
    );
    Ok(())
}

pub(crate) fn lets_the_computation_decide(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handle = scene.handles(1).await?.remove(0);
        its_own_ttl(&scene.store, &handle).await?;
        kept_nowhere(scene, &handle).await?;
        waiters_get_it(&handle).await?;
        jitter_shortens(&scene.store, &handle).await
    })
}
