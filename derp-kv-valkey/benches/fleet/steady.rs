//! Many callers of a value whose refresh takes half a TTL.

use std::time::Duration;

use anyhow::Result;

use crate::Fleet;
use crate::ledger::{Bound, Ledger};
use crate::load::{Load, OLD, Wait};
use crate::task::{Times, both};

const TTLS: u32 = 10;

pub(crate) async fn measure(fleet: &Fleet, ledger: &mut Ledger) -> Result<()> {
    let (ttl, callers) =
        if fleet.short { (Duration::from_millis(200), 20) } else { (Duration::from_secs(2), 500) };
    let lock_ttl = Duration::from_secs(10);
    let times = Times { ttl, backoff: ttl, lock_ttl };
    let load = Load {
        key: "steady".to_owned(),
        callers,
        every: Duration::from_millis(200),
        lasts: ttl * TTLS,
        cycle: ttl + ttl / 2,
        compute: ttl / 2,
        fails: false,
        until_new: false,
    };
    let mut workers = [fleet.process().await?, fleet.process().await?];
    fleet.pages(times.options()).await?.put(&load.key, &OLD.to_owned()).await?;
    let told = both(&mut workers, times, &load).await?;

    let bench = format!("2 x {callers} callers for {TTLS} TTLs, a refresh takes half of one");
    ledger.note(&bench, "answers", told.answers() as f64, Bound::None)?;
    ledger.note(&bench, "computations", told.computations.len() as f64, Bound::None)?;
    ledger.at_most(&bench, "computations within any TTL, at most", told.most_within(ttl), 1)?;
    ledger.at_most(&bench, "callers who waited for one", told.waited, 0)?;
    ledger.at_most(&bench, "callers without an answer", told.errors, 0)?;
    // Whatever else the machine does for a moment falls into one cycle, and not into the median.
    let cycles = told.fresh.iter().map(|wait| wait.cycle).max().unwrap_or_default() + 1;
    let p99s = |waits: &[Wait]| (0..cycles).map(|cycle| p99(waits, cycle)).collect::<Vec<_>>();
    let (fresh, stale) = (p99s(&told.fresh), p99s(&told.stale));
    let ratios = fresh.iter().zip(&stale).map(|(fresh, stale)| stale / fresh).collect();
    let of = "median of the cycles";
    ledger.note(&bench, &format!("p99 of a fresh hit, ms, {of}"), median(fresh), Bound::None)?;
    ledger.note(&bench, &format!("p99 of a stale hit, ms, {of}"), median(stale), Bound::None)?;
    let subject = format!("p99 of a stale hit over a fresh one, {of}");
    ledger.note(&bench, &subject, median(ratios), Bound::Time(1.2))?;
    for worker in workers {
        worker.end().await?;
    }
    Ok(())
}

/// Of one cycle, in milliseconds; not a number where nobody was answered.
fn p99(waits: &[Wait], cycle: u32) -> f64 {
    let of_it = waits.iter().filter(|wait| wait.cycle == cycle);
    let mut micros: Vec<_> = of_it.map(|wait| wait.micros).collect();
    micros.sort_unstable();
    let rank = (micros.len() * 99).div_ceil(100).saturating_sub(1);
    micros.get(rank).map_or(f64::NAN, |micros| f64::from(*micros) / 1_000.0)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.retain(|figure| figure.is_finite());
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
