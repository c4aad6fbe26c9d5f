use bytes::Bytes;
use derp_kv_core::{Cache, Error, KvStore, KvStoreExt, Raw};

use super::{LATE, NEW, OLD, STALE, TTL, options, soon, store_stale};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::laws::helpers::{Gate, until_absent};
use crate::violation::{Violation, ensure, ensure_eq};

/// What the refresh under way computes.
const OLDER: Bytes = Bytes::from_static(b"older");

/// What comes while a refresh is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Invalidate,
    Refresh,
    Put,
}

impl Change {
    async fn make(self, kv: &Store, key: &str) -> Result<(), Violation> {
        match self {
            Self::Invalidate => {
                ensure_eq!(kv.invalidate(key).await?, true, "invalidate of a stale value");
            }
            Self::Refresh => kv.refresh(key, &NEW, Some(TTL + STALE)).await?,
            Self::Put => cache(kv).put(key, &NEW).await?,
        }
        Ok(())
    }
}

fn cache(kv: &Store) -> Cache<Store, Bytes, Raw> {
    Cache::with_codec(kv.clone(), "", options(), Raw)
}

/// A refresh of the process 0 is under way, in the background or by a caller that waits for it, when
/// the process `number` changes the value.
async fn wins(
    kv: &Store,
    handles: &[Store],
    change: Change,
    number: usize,
    in_background: bool,
) -> Result<(), Violation> {
    let key = format!("{change:?} {number} {in_background}");
    store_stale(kv, &key, &OLD).await?;
    let (gate, cache) = (Gate::default(), cache(&handles[0]));
    let waits = if in_background {
        let inside = gate.clone();
        let got = cache.get(&key, move |_| async move {
            inside.pass().await;
            Ok::<_, Error>(OLDER)
        });
        ensure_eq!(soon("a caller", got).await??, OLD, "what is served during a refresh");
        None
    } else {
        let (kv, key, inside) = (handles[0].clone(), key.clone(), gate.clone());
        Some(tokio::spawn(async move {
            let work = || async {
                inside.pass().await;
                Ok::<_, Error>(OLDER)
            };
            kv.guarded_get(&key, &options(), work).await
        }))
    };
    soon("the refresh", gate.begun.notified()).await?;
    change.make(&handles[number], &key).await?;
    gate.open.notify_one();
    if let Some(waits) = waits {
        let own = soon("the one who refreshes", waits).await???;
        ensure_eq!(own, OLDER, "the older caller's own value");
    }
    ensure!(cache.drain(LATE).await, "a refresh has not ended after {LATE:?}");
    let left = kv.get(key.as_bytes()).await?;
    ensure!(left != Some(OLDER), "what a refresh computed before `{change:?}` is cached after it");
    ensure!(left != Some(OLD), "`{change:?}` leaves the stale value");
    // Whoever shares nothing takes its older value back, and with it the newer one.
    let shared = number == 0 && handles[0].flights().is_some();
    ensure!(
        !shared || change == Change::Invalidate || left.is_some(),
        "the newer value of `{change:?}` is gone"
    );
    until_absent(kv, format!("{key}:lock").as_bytes()).await?;
    let options = options();
    for kv in handles {
        let value = kv.guarded_get(&key, &options, async || Ok::<_, Error>(NEW));
        let value = soon("a caller after a change", value).await??;
        ensure_eq!(value, NEW, "the value after `{change:?}`");
    }
    Ok(())
}

pub(crate) fn invalidate_wins_over_a_refresh(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        for change in [Change::Invalidate, Change::Refresh, Change::Put] {
            for (number, in_background) in [(0, false), (0, true), (1, false), (1, true)] {
                wins(&scene.store, &handles, change, number, in_background).await.map_err(
                    |violation| {
                        let whose = if number == 0 { "the same" } else { "another" };
                        violation.within(format!("`{change:?}` of {whose} process: "))
                    },
                )?;
            }
        }
        Ok(())
    })
}
