//! A process that is killed in the middle of a refresh.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::ledger::{Bound, Ledger};
use crate::load::{Load, OLD};
use crate::support::measure::monotonic;
use crate::task::{Task, Times, hear_computing, tell, told};
use crate::{Fleet, LONG};

/// What the successor needs beyond the end of the lock: the callers ask every 20 ms, and one process tries
/// at most every 50 ms.
const A_LITTLE: f64 = 0.15;

pub(crate) async fn measure(fleet: &Fleet, ledger: &mut Ledger) -> Result<()> {
    let (rounds, lock_ttl) =
        if fleet.short { (1, Duration::from_millis(500)) } else { (10, Duration::from_secs(2)) };
    let ttl = Duration::from_secs(1);
    let times = Times { ttl, backoff: ttl, lock_ttl };
    let (mut most, mut errors, mut waited, mut begins) = (0, 0, 0, Vec::new());
    for round in 0..rounds {
        let load = Load {
            key: format!("killed:{round}"),
            callers: 5,
            every: Duration::from_millis(20),
            lasts: LONG,
            cycle: ttl,
            compute: Duration::from_millis(200),
            fails: false,
            until_new: true,
        };
        let mut holder = fleet.process().await?;
        let mut survivors = [fleet.process().await?, fleet.process().await?];
        fleet.pages(times.options()).await?.put(&load.key, &OLD.to_owned()).await?;
        tokio::time::sleep(ttl).await;
        tell(&mut holder, times, &Task::Hang { key: load.key.clone() }).await?;
        hear_computing(&mut holder).await?;
        for survivor in &mut survivors {
            tell(survivor, times, &Task::Load(load.clone())).await?;
        }
        // It is killed at different moments between two renewals, which come every third of `lock_ttl`.
        tokio::time::sleep(lock_ttl * (round + 1) / (rounds + 1)).await;
        let killed = monotonic();
        holder.kill().await?;
        let told = told(&mut survivors).await?;
        let first = told.computations.iter().min().context("nobody succeeds the holder")?;
        begins.push(first.saturating_sub(killed).as_secs_f64());
        most = most.max(told.computations.len());
        errors += told.errors;
        waited += told.waited;
        for survivor in survivors {
            survivor.end().await?;
        }
    }
    let bench =
        format!("the holder is killed in a refresh, {rounds} times, `lock_ttl` {lock_ttl:?}");
    ledger.at_most(&bench, "successors, at most", most, 1)?;
    ledger.at_most(&bench, "callers without the stale value", errors, 0)?;
    ledger.at_most(&bench, "callers who waited", waited, 0)?;
    let [first, last] = [
        begins.iter().copied().fold(f64::MAX, f64::min),
        begins.iter().copied().fold(0.0, f64::max),
    ];
    ledger.note(&bench, "from the kill to the next refresh, at least, s", first, Bound::None)?;
    let bound = Bound::Time(lock_ttl.as_secs_f64() + A_LITTLE);
    ledger.note(&bench, "from the kill to the next refresh, at most, s", last, bound)
}
