use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{KvStoreExt, StaleCause};
use tokio::time::{Instant, sleep};

use super::{
    HOUR, LATE, NEW, OLD, PAUSE, STALE, TTL, is_stale, is_unchanged, options, soon, store_stale,
};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::input::Blob;
use crate::laws::expect;
use crate::laws::helpers::{Failed, Runs};
use crate::resolution;
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

/// How long a computation takes until it fails, and is then not tried again.
const UNTIL_FAILED: Duration = Duration::from_millis(120);
const BACKOFF: Duration = Duration::from_millis(200);

/// Whoever comes after a failure gets the old value, and leaves it as it is.
async fn all_get_the_old_value(scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
    let options = options().backoff(HOUR);
    for number in 0..handles.len() {
        let key = format!("{number}");
        let written = store_stale(&scene.store, &key, &OLD).await?;
        let runs = Runs::default();
        // The first of them fails, and then comes everybody, twice.
        let later = handles.iter().chain(handles);
        for (caller, kv) in [&handles[number]].into_iter().chain(later).enumerate() {
            let work = async || {
                runs.begin();
                Err::<Bytes, _>(Failed::Work)
            };
            let got = soon("a caller", kv.guarded_get_detailed(&key, &options, work)).await?;
            let got = got.map_err(|failed| match failed {
                Failed::Work => {
                    Violation::new("a refresh that fails is an error, although a value is there")
                }
                Failed::Store(error) => error.into(),
            })?;
            let cause = is_stale(&got)?;
            if caller == 0 {
                ensure_eq!(cause, StaleCause::Failed, "what the one is told whose refresh failed");
            }
        }
        ensure_eq!(runs.count(), 1, "the number of refreshes within a back-off");
        is_unchanged(&scene.store, &key, &OLD, &written, scene.slack()).await?;
    }
    Ok(())
}

/// When a computation began, and when it failed.
type Tries = Arc<Mutex<Vec<(Instant, Option<Instant>)>>>;

fn with<T>(tries: &Tries, look: impl FnOnce(&mut Vec<(Instant, Option<Instant>)>) -> T) -> T {
    look(&mut tries.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The next refresh begins a back-off after the end of the one that failed, whoever comes.
async fn is_tried_again(scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
    let options = options().backoff(BACKOFF);
    store_stale(&scene.store, "again", &OLD).await?;
    let tries = Tries::default();
    let bound = UNTIL_FAILED + BACKOFF + resolution::lateness() + LATE;
    let began = Instant::now();
    for caller in 0.. {
        ensure!(began.elapsed() < bound, "after a back-off of {BACKOFF:?} nobody tries again");
        let work = async || {
            let number = with(&tries, |tries| {
                tries.push((Instant::now(), None));
                tries.len() - 1
            });
            if number > 0 {
                return Ok(NEW);
            }
            sleep(UNTIL_FAILED).await;
            with(&tries, |tries| tries[number].1 = Some(Instant::now()));
            Err(Failed::Work)
        };
        let kv = &handles[caller % handles.len()];
        let got = kv.guarded_get_detailed("again", &options, work).await?;
        if got.value == NEW {
            break;
        }
        is_stale(&got)?;
        sleep(PAUSE).await;
    }
    let tries = with(&tries, std::mem::take);
    let [(_, Some(failed)), (next, None)] = tries[..] else {
        return Err(Violation::new(format!("{} refreshes were begun, not two", tries.len())));
    };
    let rested = next.saturating_duration_since(failed);
    ensure!(
        rested + PAUSE >= BACKOFF,
        "a refresh that failed is tried again after {rested:?}, with a back-off of {BACKOFF:?}"
    );
    expect(&scene.store, b"again", &Blob(NEW.into()), Some(TTL + STALE)).await
}

pub(crate) fn serves_stale_when_the_refresh_fails(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(3).await?;
        all_get_the_old_value(scene, &handles).await?;
        is_tried_again(scene, &handles).await
    })
}
