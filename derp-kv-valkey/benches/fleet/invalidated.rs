//! Invalidations while another process refreshes the value.

use std::time::Duration;

use anyhow::Result;

use crate::Fleet;
use crate::ledger::{Bound, Ledger, Limit};
use crate::load::OLD;
use crate::task::{Task, Times, hear_computing, tell};

pub(crate) async fn measure(fleet: &Fleet, ledger: &mut Ledger) -> Result<()> {
    let rounds = if fleet.short { 50 } else { 1_000 };
    let ttl = Duration::from_millis(1);
    let times = Times { ttl, backoff: ttl, lock_ttl: Duration::from_secs(10) };
    let pages = fleet.pages(times.options()).await?;
    let mut worker = fleet.process().await?;
    let (mut wins, mut under_way) = (0, 0);
    for round in 0..rounds {
        let key = format!("invalidated:{round}");
        pages.put(&key, &OLD.to_owned()).await?;
        tokio::time::sleep(2 * ttl).await;
        // It ends before the invalidation, at the same time, or after it.
        let takes = Duration::from_millis(round % 3);
        tell(&mut worker, times, &Task::Refresh { key: key.clone(), takes }).await?;
        hear_computing(&mut worker).await?;
        pages.invalidate(&key).await?;
        under_way += u32::from(worker.hear().await? != "0");
        // The refresh has ended, and nobody has asked since: what is there is what it has left.
        wins += u32::from(pages.peek(&key).await?.is_none());
    }
    worker.end().await?;
    let bench = format!("`invalidate` during a refresh in another process, {rounds} times");
    ledger.note(
        &bench,
        "refreshes that were outdated before they could end",
        under_way.into(),
        Bound::None,
    )?;
    let all = Bound::Count(Limit::AtLeast(rounds as f64));
    ledger.note(&bench, "invalidations that won", wins.into(), all)
}
