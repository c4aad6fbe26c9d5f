//! Which part of a limit callers get who ask steadily.

use anyhow::Result;

use crate::run::{TICKS, Working};
use crate::subject::{Kind, LIMIT, MILLI, Subject, WINDOW};

/// For how many tenths of a window they ask before it is counted, so that no first burst is, and
/// then.
fn tenths(subject: &Subject) -> (u64, u64) {
    if subject.limit > LIMIT { (1, 2) } else { (110, 100) }
}

/// How fast they ask, in parts of a hundred of the limit's rate: as fast, and faster.
const RATES: [&[u64]; 2] = [&[100], &[110, 150, 200]];

/// The part of the limit that is admitted, with arrivals at its rate and with faster ones. Of
/// several rates, and of clocks with several ticks, the least.
pub(crate) async fn share(subject: &Subject) -> Result<[f64; 2]> {
    let ours = matches!(subject.kind, Kind::Ours(_));
    let mut least = [f64::INFINITY; 2];
    for tick in if ours { &TICKS[..] } else { &TICKS[..1] } {
        for (least, rates) in least.iter_mut().zip(RATES) {
            for rate in rates {
                *least = least.min(share_at(subject, *tick, subject.limit * rate / 100).await?);
            }
        }
    }
    Ok(least)
}

async fn share_at(subject: &Subject, tick: u64, rate: u64) -> Result<f64> {
    let mut limit = Working::new(subject, tick)?;
    let (before, counted) = tenths(subject);
    let mut admitted = 0;
    for nth in 0..(before + counted) * rate / 10 {
        // Not on the edges of the clock's ticks.
        let now = MILLI / 3 + nth * WINDOW / rate;
        let answer = limit.ask(now).await?;
        admitted += u64::from(answer.admitted && nth >= before * rate / 10);
    }
    Ok(admitted as f64 / (counted * subject.limit / 10) as f64)
}
