//! An origin that fails for a while.

use std::time::Duration;

use anyhow::Result;

use crate::Fleet;
use crate::ledger::{Bound, Ledger};
use crate::load::{Load, OLD};
use crate::task::{Times, both};

pub(crate) async fn measure(fleet: &Fleet, ledger: &mut Ledger) -> Result<()> {
    let (lasts, backoff) = if fleet.short {
        (Duration::from_secs(2), Duration::from_millis(500))
    } else {
        (Duration::from_secs(60), Duration::from_secs(10))
    };
    let ttl = Duration::from_millis(100);
    let times = Times { ttl, backoff, lock_ttl: Duration::from_secs(2) };
    let load = Load {
        key: "failing".to_owned(),
        // 50 questions a second.
        callers: 5,
        every: Duration::from_millis(100),
        lasts,
        cycle: backoff,
        compute: Duration::from_millis(100),
        fails: true,
        until_new: false,
    };
    let mut workers = [fleet.process().await?, fleet.process().await?];
    fleet.pages(times.options()).await?.put(&load.key, &OLD.to_owned()).await?;
    tokio::time::sleep(ttl).await;
    let told = both(&mut workers, times, &load).await?;

    let bench = format!("the origin fails for {lasts:?}, 100 callers a second in two processes");
    let calls = told.calls as f64 / told.answers().max(1) as f64;
    ledger.note(&bench, "answers", told.answers() as f64, Bound::None)?;
    ledger.note(&bench, "computations", told.computations.len() as f64, Bound::None)?;
    let within = format!("computations within any `backoff` of {backoff:?}, at most");
    ledger.at_most(&bench, &within, told.most_within(backoff), 1)?;
    ledger.at_most(&bench, "callers without the stale value", told.errors + told.fresh.len(), 0)?;
    ledger.at_most(&bench, "callers who waited for a computation", told.waited, 0)?;
    let most = usize::try_from(told.most_calls)?;
    ledger.at_most(&bench, "round trips of a caller, at most", most, 2)?;
    ledger.note(
        &bench,
        "calls of the store an answer, with those in the background",
        calls,
        Bound::None,
    )?;
    for worker in workers {
        worker.end().await?;
    }
    Ok(())
}
