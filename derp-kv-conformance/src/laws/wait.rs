mod bounds;
mod every;
mod hears;
mod kinds;
mod listeners;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use derp_kv_core::KvStore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::bench::{Bench, LawResult, at_once};
use crate::input::{Blob, bytes, key};
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

pub(crate) use bounds::takes_any_bound;
pub(crate) use every::wakes_every_waiter;
pub(crate) use hears::hears_each_kind_of_change;
use kinds::{Before, Change, Kind};
pub(super) use listeners::{FOREVER, heard, knows_of_changes};

/// How late a wait may return. A loaded machine may be slow, but not by this much; where time is
/// virtual, nothing is slow, and a clock may tick in milliseconds.
fn late(is_virtual: bool) -> Duration {
    if is_virtual { Duration::from_millis(10) } else { Duration::from_secs(8) }
}

pub(crate) fn returns_in_time(bench: &Bench<'_>) -> LawResult {
    let inputs = (key(), proptest::option::of(bytes()), bytes(), 0_u64..20);
    bench.timed_property(inputs, async |scene, (key, value, other, at_most)| {
        let kv = &scene.store;
        if let Some(value) = &value {
            kv.set(&key, value, None).await?;
        }
        let (at_most, late) = (Duration::from_millis(at_most), late(scene.is_virtual()));
        for seen in [value.as_deref(), None, Some(&other[..])] {
            let began = Instant::now();
            kv.wait_for_change(&key, seen, at_most).await;
            let waited = began.elapsed();
            ensure!(waited <= at_most + late, "{waited:?} went by, of {at_most:?} at most");
        }
        let found = kv.get(&key).await?;
        ensure_eq!(found.as_deref(), value.as_deref(), "the value afterwards");
        Ok(())
    })
}

pub(crate) fn loses_no_change(bench: &Bench<'_>) -> LawResult {
    let knows = Cell::new(false);
    bench.scenario(async |scene| {
        knows.set(knows_of_changes(scene).await?);
        if knows.get() { sees_what_differs(scene).await } else { Ok(()) }
    })?;
    if !knows.get() {
        return Ok(());
    }
    let handles = RefCell::new(Vec::new());
    let kinds: Vec<_> = Kind::all()
        .into_iter()
        .filter(|kind| kind.before != Before::Expired)
        .filter(|kind| !kind.shows_late() || kind.change == Change::Expire)
        .collect();
    bench.race(async |scene, round| {
        if round == 0 {
            handles.replace(scene.handles(2).await?);
        }
        // Two waiters and, a few turns later or sooner, the one change.
        let (first, second) = (handles.borrow()[0].clone(), handles.borrow()[1].clone());
        let kind = kinds[usize::try_from(round).unwrap_or(0) % kinds.len()];
        let key = format!("{round}").into_bytes();
        kind.prepare(&first, &key).await?;
        let callers = if round % 2 == 0 { [&first, &second, &second] } else { [&first; 3] };
        at_once(callers.map(Clone::clone), |number, kv| {
            let key = key.clone();
            async move {
                if number > 0 {
                    let hear = async {
                        while kv.get(&key).await?.as_deref() == kind.before.seen() {
                            kv.wait_for_change(&key, kind.before.seen(), FOREVER).await;
                        }
                        Ok(())
                    };
                    let slept = |_| Violation::new(format!("a waiter slept through {kind:?}"));
                    return timeout(heard(), hear).await.map_err(slept)?;
                }
                for _ in 0..round % 7 {
                    tokio::task::yield_now().await;
                }
                kind.make(&kv, &key).await
            }
        })
        .await?;
        Ok(())
    })
}

/// Where the value differs from the beginning, nobody sleeps.
async fn sees_what_differs(scene: &mut Scene<'_>) -> Result<(), Violation> {
    type Seen = Option<&'static [u8]>;
    const LARGE: &[u8] = &[b'v'; 100_000];
    const LARGE_BUT_LAST: &[u8] = &{
        let mut value = [b'v'; 100_000];
        value[99_999] = b'w';
        value
    };
    const DIFFER: [(Seen, Seen); 14] = [
        (None, Some(b"v")),
        (None, Some(b"")),
        (Some(b"v"), None),
        (Some(b""), None),
        (Some(b""), Some(b"v")),
        (Some(b"v"), Some(b"")),
        (Some(b"value"), Some(b"val")),
        (Some(b"val"), Some(b"value")),
        (Some(b"value"), Some(b"Value")),
        (Some(b"\xff"), Some(b"\xfe")),
        (Some(b"1"), Some(b"01")),
        (Some(b"v\0"), Some(b"v")),
        (Some(LARGE), Some(LARGE_BUT_LAST)),
        (Some(LARGE), Some(LARGE.split_at(99_999).0)),
    ];
    let kv = scene.handles(1).await?.remove(0);
    let expired = (b"expired".to_vec(), None, Some(&b"v"[..]));
    kv.set(&expired.0, b"v", Some(Duration::from_millis(1))).await?;
    let mut cases = vec![expired];
    for (number, (found, seen)) in DIFFER.into_iter().enumerate() {
        let key = format!("differs {number}").into_bytes();
        if let Some(found) = found {
            kv.set(&key, found, None).await?;
        }
        cases.push((key, found, seen));
    }
    scene.elapse(Duration::from_millis(30)).await;
    let mut waits = JoinSet::new();
    for (key, found, seen) in cases {
        let kv = kv.clone();
        waits.spawn(async move {
            let wait = kv.wait_for_change(&key, seen, FOREVER);
            let (found, seen) = (found.map(Blob::from), seen.map(Blob::from));
            timeout(heard(), wait).await.map_err(|_| {
                Violation::new(format!("a waiter that saw {seen:?} sleeps, and there is {found:?}"))
            })
        });
    }
    while let Some(waited) = waits.join_next().await {
        waited??;
    }
    Ok(())
}
