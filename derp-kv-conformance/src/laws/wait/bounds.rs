//! No bound is too short or too long for a wait.

use std::time::Duration;

use derp_kv_core::KvStore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::late;
use super::listeners::{Bedroom, FOREVER, Listeners, heard_by, knows_of_changes};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::violation::{Violation, ensure};

/// Bounds that are cut to nothing: a server may take that for no bound.
const SHORT: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_micros(1),
    Duration::from_nanos(999_999),
    Duration::from_millis(1),
    Duration::from_micros(1_001),
];

/// Bounds that overflow: the clock, a number of 32, 63 or 64 bits in some unit, a float.
const LONG: [Duration; 12] = [
    FOREVER,
    Duration::from_millis(i32::MAX as u64 + 1),
    Duration::from_millis(u32::MAX as u64 + 1),
    Duration::from_secs(i32::MAX as u64 + 1),
    Duration::from_secs(u32::MAX as u64 + 1),
    Duration::from_nanos(u64::MAX),
    Duration::from_micros(i64::MAX as u64 + 1),
    Duration::from_millis(u64::MAX),
    Duration::from_secs(u64::MAX / 1_000 + 1),
    Duration::from_secs(i64::MAX as u64 + 1),
    Duration::from_secs(u64::MAX),
    Duration::MAX,
];

pub(crate) fn takes_any_bound(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let knows = knows_of_changes(scene).await?;
        let handles = scene.handles(2).await?;
        handles[0].set(b"present", b"v", None).await?;
        short(&handles, late(bench.is_virtual())).await?;
        let bedroom = Bedroom::default();
        let mut listening = Vec::new();
        for (number, bound) in LONG.into_iter().enumerate() {
            let key = format!("long {number}").into_bytes();
            let seen = (number % 2 == 0).then_some(&b"1"[..]);
            if let Some(seen) = seen {
                handles[0].set(&key, seen, None).await?;
            }
            let what = format!("a change, in a wait of at most {bound:?}");
            let mut listeners = Listeners::new(key, what);
            for handle in &handles {
                listeners.add(handle, seen, bound, &bedroom);
            }
            listening.push(listeners);
        }
        bedroom.asleep().await;
        // A backend may look again from time to time, or be woken by strangers: then at any bound.
        let least = listening.iter().map(Listeners::returns).min().unwrap_or(0);
        for (listeners, bound) in listening.iter().zip(LONG) {
            let returns = listeners.returns();
            ensure!(
                returns <= 50 + 10 * least,
                "a wait of at most {bound:?} has returned {returns} times, one of {FOREVER:?} \
                 {} times, for nothing",
                listening[0].returns()
            );
        }
        for listeners in &listening {
            handles[1].set(&listeners.key, b"2", None).await?;
        }
        if knows {
            let until = heard_by();
            for listeners in &mut listening {
                listeners.hear(until).await?;
            }
        }
        for listeners in &mut listening {
            listeners.unharmed()?;
        }
        Ok(())
    })
}

/// Each short bound side by side, on a key that is there and on one that is not.
async fn short(handles: &[Store], late: Duration) -> Result<(), Violation> {
    let mut waits = JoinSet::new();
    for bound in SHORT {
        for (key, seen) in [(&b"present"[..], Some(&b"v"[..])), (b"absent", None)] {
            let kv = handles[0].clone();
            waits.spawn(async move {
                let wait = kv.wait_for_change(key, seen, bound);
                timeout(bound + late, wait).await.map_err(|_| {
                    Violation::new(format!("a wait of at most {bound:?} takes {late:?} more"))
                })
            });
        }
    }
    while let Some(waited) = waits.join_next().await {
        waited??;
    }
    Ok(())
}
