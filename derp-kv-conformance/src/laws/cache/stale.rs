use derp_kv_core::{Error, Freshness, KvStore, KvStoreExt, Source};
use tokio::task::JoinSet;

use super::{NEW, OLD, STALE, TTL, is_stale, is_unchanged, options, soon, store_stale};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::input::Blob;
use crate::laws::expect;
use crate::laws::helpers::{Gate, Runs, until_absent};
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

/// Callers over all processes.
const CALLERS: usize = 30;

/// In each process, who comes alone to a stale value refreshes it.
async fn refreshes_alone(handles: &[Store], kv: &impl KvStore) -> Result<(), Violation> {
    let options = options();
    for (number, alone) in handles.iter().enumerate() {
        let key = format!("alone {number}");
        store_stale(kv, &key, &OLD).await?;
        let got = alone.guarded_get_detailed(&key, &options, async || Ok::<_, Error>(NEW));
        let got = soon("the only caller of a stale value", got).await??;
        ensure_eq!(got.value, NEW, "what the only caller of a stale value gets");
        let told = (got.freshness, got.source);
        ensure_eq!(told, (Freshness::Fresh, Source::Computed), "what it is told");
        expect(kv, key.as_bytes(), &Blob(NEW.into()), Some(TTL + STALE)).await?;
    }
    Ok(())
}

/// Of many callers one computes, and is kept at it while all others are answered.
async fn one_refreshes(scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
    let kv = &scene.store;
    let written = store_stale(kv, "k", &OLD).await?;
    let (runs, gate) = (Runs::default(), Gate::default());
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let (kv, runs, gate) =
            (handles[number % handles.len()].clone(), runs.clone(), gate.clone());
        callers.spawn(async move {
            let work = || async {
                runs.begin();
                gate.pass().await;
                Ok::<_, Error>(NEW)
            };
            kv.guarded_get_detailed("k", &options(), work).await
        });
    }
    for answered in 1..CALLERS {
        let answer = soon("a caller", callers.join_next()).await.map_err(|violation| {
            let runs = runs.count();
            violation.within(format!("of {answered} callers of a stale value {runs} compute: "))
        })?;
        let Some(answer) = answer else { break };
        is_stale(&answer??)?;
    }
    soon("the refresh", gate.begun.notified()).await?;
    is_unchanged(kv, "k", &OLD, &written, scene.slack()).await?;
    gate.open.notify_one();
    let Some(last) = soon("the one who refreshes", callers.join_next()).await? else {
        return Err(Violation::new("nobody refreshes a stale value"));
    };
    let got = last??;
    ensure_eq!(got.value, NEW, "what the one who refreshes gets");
    ensure_eq!(runs.count(), 1, "the number of refreshes, of {CALLERS} callers,");
    expect(kv, b"k", &Blob(NEW.into()), Some(TTL + STALE)).await?;
    ensure_eq!(kv.get(b"k").await?, Some(NEW), "what a plain `get` reads");
    until_absent(kv, b"k:lock").await?;
    for kv in handles {
        let work = async || {
            runs.begin();
            Ok::<_, Error>(OLD)
        };
        let got = kv.guarded_get_detailed("k", &options(), work).await?;
        ensure_eq!(got.value, NEW, "the value after the refresh");
        let told = (got.freshness, got.source);
        ensure_eq!(told, (Freshness::Fresh, Source::Store), "what is said of it");
    }
    ensure!(runs.count() == 1, "a value that was just refreshed is computed again");
    Ok(())
}

pub(crate) fn serves_stale_while_one_refreshes(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(3).await?;
        refreshes_alone(&handles, &scene.store).await?;
        one_refreshes(scene, &handles).await
    })
}
