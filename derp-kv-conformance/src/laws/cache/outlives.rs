use derp_kv_core::{Cache, Error};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{LATE, PAUSE, STALE, TTL, options, soon};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::input::Blob;
use crate::laws::helpers::{Gate, Runs, until_absent};
use crate::laws::{drop_after, expect};
use crate::violation::{Violation, ensure, ensure_eq};

fn cache(kv: &Store) -> Cache<Store, u32> {
    Cache::new(kv.clone(), "", options())
}

/// A caller goes away in the middle of its computation; others come before that, or after it.
async fn goes_away(kv: &Store, handles: &[Store], others_wait: bool) -> Result<(), Violation> {
    let key = format!("{others_wait}");
    let caches: Vec<_> = handles.iter().map(cache).collect();
    let (gate, runs) = (Gate::default(), Runs::default());
    let caller = tokio::spawn({
        let (cache, key, gate, runs) = (caches[0].clone(), key.clone(), gate.clone(), runs.clone());
        async move {
            let work = move |_| async move {
                runs.begin();
                gate.pass().await;
                Ok::<_, Error>(7)
            };
            cache.get(&key, work).await
        }
    });
    soon("a computation", gate.begun.notified()).await?;
    let mut others = JoinSet::new();
    let mut come = || {
        for cache in caches.iter().chain(&caches) {
            let (cache, key, runs) = (cache.clone(), key.clone(), runs.clone());
            others.spawn(async move {
                let work = move |_| async move {
                    runs.begin();
                    Ok::<_, Error>(8)
                };
                cache.get(&key, work).await
            });
        }
    };
    if others_wait {
        come();
        // They surely wait by then.
        sleep(PAUSE * 2).await;
    }
    caller.abort();
    let ended = caller.await;
    ensure!(ended.is_err_and(|error| error.is_cancelled()), "a caller ended by itself");
    // Long enough for whoever takes the computation for ended.
    sleep(PAUSE * 2).await;
    if !others_wait {
        come();
    }
    gate.open.notify_one();
    while let Some(value) = soon("one who waits", others.join_next()).await? {
        ensure_eq!(value??, 7, "what one gets who waits for a caller that went away");
    }
    ensure!(caches[0].drain(LATE).await, "a computation has not ended after {LATE:?}");
    ensure_eq!(runs.count(), 1, "the number of computations, of which a caller went away,");
    expect(kv, key.as_bytes(), &Blob(b"7".to_vec()), Some(TTL + STALE)).await?;
    until_absent(kv, format!("{key}:lock").as_bytes()).await
}

/// A caller goes away at any point of its call.
async fn at_any_point(kv: &Store, handles: &[Store]) -> Result<(), Violation> {
    let caches: Vec<_> = handles.iter().map(cache).collect();
    for polls in 0..12 {
        let key = format!("after {polls} polls");
        let work = |_| async {
            tokio::task::yield_now().await;
            Ok::<_, Error>(7)
        };
        drop_after(polls, caches[0].get(&key, work)).await;
        let next = caches[1].get(&key, |_| async { Ok::<_, Error>(8) });
        let value = soon("who comes after a caller that went away", next).await??;
        ensure!([7, 8].contains(&value), "{value} was computed by nobody");
        ensure!(caches[0].drain(LATE).await, "a computation has not ended after {LATE:?}");
        until_absent(kv, format!("{key}:lock").as_bytes()).await?;
    }
    Ok(())
}

pub(crate) fn outlives_its_callers(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        for others_wait in [true, false] {
            goes_away(&scene.store, &handles, others_wait).await?;
        }
        at_any_point(&scene.store, &handles).await
    })
}
