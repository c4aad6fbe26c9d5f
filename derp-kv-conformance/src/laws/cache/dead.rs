use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use derp_kv_core::{Error, KvStore, KvStoreExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{LATE, NEW, OLD, PAUSE, STALE, TTL, is_stale, options, store_stale};
use crate::bench::{Bench, LawResult};
use crate::input::Blob;
use crate::laws::expect;
use crate::model::{Deadline, Span};
use crate::resolution;
use crate::violation::{Violation, ensure, ensure_eq};

/// How long the lock of the dead lasts.
const LASTS: Duration = Duration::from_millis(300);

pub(crate) fn succeeds_a_dead_refresher(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(3).await?;
        let kv = &scene.store;
        store_stale(kv, "k", &OLD).await?;
        let (locked, span) =
            Span::of(kv.set(b"k:lock", b"the token of the dead", Some(LASTS))).await;
        locked?;
        let lock = Deadline::new(LASTS, span);
        let bound = lock.latest(resolution::lateness()) + LATE;
        let begun = Arc::<Mutex<Vec<Instant>>>::default();
        let mut callers = JoinSet::new();
        for kv in handles.iter().chain(&handles) {
            let (kv, begun) = (kv.clone(), begun.clone());
            callers.spawn(async move {
                loop {
                    let work = || async {
                        begun.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                        sleep(PAUSE).await;
                        Ok::<_, Error>(NEW)
                    };
                    let got = kv.guarded_get_detailed("k", &options(), work).await?;
                    if got.value == NEW {
                        return Ok::<_, Violation>(());
                    }
                    is_stale(&got)?;
                    let late = Instant::now() > bound;
                    ensure!(!late, "{LATE:?} after the lock of the dead ended, nobody refreshes");
                    sleep(PAUSE / 2).await;
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller??;
        }
        let begun = begun.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ensure_eq!(begun.len(), 1, "the number of those who refresh after one that died");
        let early = lock.earliest().saturating_duration_since(begun[0]);
        ensure!(early <= PAUSE, "a refresh begins {early:?} before the lock of the dead ends");
        expect(kv, b"k", &Blob(NEW.into()), Some(TTL + STALE)).await
    })
}
