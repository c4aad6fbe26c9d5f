use std::time::Duration;

use derp_kv_core::KvStore;
use tokio::time::Instant;

use crate::Harness;
use crate::bench::{Bench, LawResult, at_once};
use crate::input::{bytes, key};
use crate::scene::Handle;
use crate::violation::{Violation, ensure, ensure_eq};

/// A loaded machine may be late, but not by this much.
const LATE: Duration = Duration::from_secs(8);

pub(crate) fn returns_in_time<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    let inputs = (key(), proptest::option::of(bytes()), bytes(), 0_u64..20);
    bench.timed_property(inputs, async |scene, (key, value, other, at_most)| {
        let kv = &scene.store;
        if let Some(value) = &value {
            kv.set(&key, value, None).await?;
        }
        let at_most = Duration::from_millis(at_most);
        for seen in [value.as_deref(), None, Some(&other[..])] {
            let began = Instant::now();
            kv.wait_for_change(&key, seen, at_most).await;
            let waited = began.elapsed();
            ensure!(waited <= at_most + LATE, "{waited:?} went by, of {at_most:?} at most");
        }
        let found = kv.get(&key).await?;
        ensure_eq!(found.as_deref(), value.as_deref(), "the value afterwards");
        Ok(())
    })
}

/// Longer than a wake-up takes on any machine.
const LONG: Duration = Duration::from_secs(15);

/// Whether the backend knows of changes, or only sleeps.
async fn wakes(kv: &impl KvStore) -> Result<bool, Violation> {
    let at_most = Duration::from_millis(300);
    kv.set(b"changed", b"v", None).await?;
    let began = Instant::now();
    kv.wait_for_change(b"changed", None, at_most).await;
    Ok(began.elapsed() < at_most)
}

pub(crate) fn loses_no_change<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    let patience = std::cell::Cell::new(None);
    bench.race(async |scene, round| {
        let at_most = match patience.get() {
            Some(at_most) => at_most,
            None => {
                let wakes = wakes(&scene.store).await?;
                let at_most = if wakes { LONG } else { Duration::from_millis(5) };
                patience.set(Some(at_most));
                at_most
            }
        };
        let key = format!("{round}").into_bytes();
        let seen: Option<&'static [u8]> = if round % 3 == 0 { None } else { Some(b"1") };
        if let Some(seen) = seen {
            scene.store.set(&key, seen, None).await?;
        }
        let began = Instant::now();
        at_once(scene.handles(3).await?, |number, kv| {
            let key = key.clone();
            async move {
                if number > 0 {
                    return change(&kv, &key, seen, round + u32::try_from(number).unwrap_or(0))
                        .await;
                }
                while kv.get(&key).await?.as_deref() == seen {
                    kv.wait_for_change(&key, seen, at_most).await;
                }
                Ok(())
            }
        })
        .await?;
        let waited = began.elapsed();
        ensure!(waited < LONG, "a waiter slept through a change: {waited:?} went by");
        Ok(())
    })
}

/// Changes the value for good, in one of several ways.
async fn change<S: KvStore>(
    kv: &Handle<S>,
    key: &[u8],
    seen: Option<&[u8]>,
    way: u32,
) -> Result<(), Violation> {
    match (seen, way % 5) {
        (Some(seen), 0) => drop(kv.compare_and_set(key, seen, b"8", None).await?),
        (Some(seen), 1) => drop(kv.compare_and_delete(key, seen).await?),
        (Some(_), 2) => drop(kv.delete(key).await?),
        (Some(_), 3) => drop(kv.expire(key, Duration::from_millis(20)).await?),
        (None, 0) => drop(kv.set_nx(key, b"8", None).await?),
        (None, 1) => kv.mset(&[(key, b"8")], None).await?,
        (None, 2) => drop(kv.incr(key, 7, None).await?),
        (Some(_) | None, _) => kv.set(key, b"8", None).await?,
    }
    Ok(())
}
