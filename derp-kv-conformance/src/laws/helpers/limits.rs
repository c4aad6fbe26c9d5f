//! What smooth and strict limits promise, alone and together.

use std::time::Duration;

use derp_kv_core::{KvStoreExt, RateLimit, RateLimitStatus};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::bench::{Bench, LawResult};
use crate::model::Span;
use crate::resolution;
use crate::violation::{Violation, ensure, ensure_eq};

/// Of a period so long, nothing comes back while a case plays, on a store of any resolution.
const AGES: Duration = Duration::from_secs(60 * 24 * 60 * 60);

const MILLI: Duration = Duration::from_millis(1);

/// Both kinds of limit that a step decides, of the same numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Smooth,
    Strict,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Smooth, Self::Strict];

    pub(super) fn limit(self, most: u64, period: Duration) -> RateLimit {
        match self {
            Self::Smooth => RateLimit::smooth(most, period),
            Self::Strict => RateLimit::strict(most, period),
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> + Clone {
    select(&Kind::ALL[..])
}

/// A pause between two bursts.
#[derive(Clone, Copy, Debug)]
enum Pause {
    /// So many sub-windows, a little less or a little more.
    SubWindows(u32, Edge),
    /// So many times what a unit is paid for in.
    Units(u32, Edge),
    /// A period.
    Period(Edge),
    Nanos(u64),
}

#[derive(Clone, Copy, Debug)]
enum Edge {
    Before,
    At,
    After,
}

impl Pause {
    fn of(self, most: u64, period: Duration) -> Duration {
        let millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        let sub_window = Duration::from_millis(millis.div_ceil(60).max(1));
        let unit = period / u32::try_from(most).unwrap_or(1);
        let (pause, edge) = match self {
            Self::SubWindows(count, edge) => (sub_window * count, edge),
            Self::Units(count, edge) => (unit * count, edge),
            Self::Period(edge) => (period, edge),
            Self::Nanos(nanos) => return Duration::from_nanos(nanos),
        };
        match edge {
            Edge::Before => pause.saturating_sub(MILLI),
            Edge::At => pause,
            Edge::After => pause + MILLI,
        }
    }
}

fn pauses() -> impl Strategy<Value = Pause> + Clone {
    let edge = || select(&[Edge::Before, Edge::At, Edge::After][..]);
    prop_oneof![
        3 => (1_u32..62, edge()).prop_map(|(count, edge)| Pause::SubWindows(count, edge)),
        2 => (1_u32..4, edge()).prop_map(|(count, edge)| Pause::Units(count, edge)),
        2 => edge().prop_map(Pause::Period),
        1 => (0_u64..3_000_000).prop_map(Pause::Nanos),
    ]
}

/// Calls that were admitted at a moment within a span.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    at: Span,
    cost: u64,
}

/// Checks that no time of any length and position held more than the limit allows.
fn bounded(
    kind: Kind,
    (most, burst, period): (u64, u64, Duration),
    admitted: &[Admitted],
) -> Result<(), Violation> {
    // Where the server has a clock of its own, its milliseconds are not this process's.
    let apart = if admitted.iter().all(|call| call.at.began == call.at.ended) { 0 } else { 2 };
    let unit = period.div_f64(most as f64);
    let ticks = apart + 1 + u32::from(unit < MILLI);
    for (number, first) in admitted.iter().enumerate() {
        let mut sum = 0;
        for last in &admitted[number..] {
            sum += last.cost;
            let time = last.at.ended - first.at.began;
            let (within, at_most) = match kind {
                Kind::Strict => (time + apart * MILLI <= period, most),
                Kind::Smooth => {
                    let nanos = (time + ticks * MILLI).as_nanos() * u128::from(most);
                    let more = u64::try_from(nanos / period.as_nanos()).unwrap_or(u64::MAX);
                    (true, burst.saturating_add(more))
                }
            };
            ensure!(
                !within || sum <= at_most,
                "{sum} were admitted in {time:?}: {kind:?}, {most} in {period:?}, a burst of {burst}"
            );
        }
    }
    Ok(())
}

pub(crate) fn rate_limit_keeps_its_bound(bench: &Bench<'_>) -> LawResult {
    let (periods, bursts) = if bench.is_virtual() {
        (prop_oneof![1_u64..200, 60_u64..6_000].boxed(), 1..40)
    } else {
        ((60_u64..120).boxed(), 1..6)
    };
    let bursts = vec((pauses(), 1_u64..14, 1_u64..3), bursts);
    let numbers = (1_u64..12, 1_u64..12, periods);
    bench.timed_property((kinds(), numbers, bursts), async |scene, (kind, numbers, bursts)| {
        let (most, burst, period) = numbers;
        let period = Duration::from_millis(period);
        let (limit, burst) = match kind {
            Kind::Smooth => (RateLimit::smooth(most, period).burst(burst), burst),
            Kind::Strict => (RateLimit::strict(most, period), most),
        };
        let handles = scene.handles(2).await?;
        let mut admitted = Vec::new();
        let mut reset_after = Duration::ZERO;
        for (pause, calls, cost) in bursts {
            scene.elapse(pause.of(most, period)).await;
            let limit = limit.clone().cost(cost.min(burst));
            for number in 0..calls {
                let kv = &handles[usize::from(number % 2 == 1)];
                let (answer, at) = Span::of(kv.rate_limit("ada", &limit)).await;
                let answer = answer?;
                reset_after = answer.reset_after;
                if answer.allowed {
                    admitted.push(Admitted { at, cost: cost.min(burst) });
                }
            }
        }
        // A store that tells less than is left, by up to its resolution, lets as much time pass with
        // each call.
        if resolution::promised() <= resolution::FINEST {
            bounded(kind, (most, burst, period), &admitted)?;
        }
        // It is not kept by admitting nothing: once all has gone, all may pass.
        scene.elapse(reset_after + scene.slack()).await;
        let answer = handles[0].rate_limit("ada", &limit.cost(burst)).await?;
        ensure!(answer.allowed, "after a reset, {burst} are denied: {answer:?}");
        Ok(())
    })
}

pub(crate) fn rate_limit_tells_when(bench: &Bench<'_>) -> LawResult {
    let periods = if bench.is_virtual() { 1_u64..100_000 } else { 60_u64..120 };
    let others = vec((1_u64..8, periods.clone()), 0..3);
    let strategy = (kinds(), (3_u64..10, periods), others, vec(0_u64..40, 1..10), 1_u64..4);
    bench.timed_property(strategy, async |scene, (kind, (most, period), others, used, cost)| {
        let exact = scene.is_virtual() && resolution::promised() <= resolution::FINEST;
        let handles = scene.handles(2).await?;
        let others = others.into_iter().map(|(spare, period)| (most + spare, period));
        let all = std::iter::once((most, period)).chain(others);
        let limits = RateLimit::all(
            all.map(|(most, period)| kind.limit(most, Duration::from_millis(period))),
        );
        for pause in used {
            scene.elapse(Duration::from_micros(pause * period * 10)).await;
            handles[0].rate_limit("ada", &limits).await?;
        }
        let limits = limits.cost(cost);
        let mut denied = handles[1].rate_limit("ada", &limits).await?;
        for _ in 0..20 {
            if !denied.allowed {
                break;
            }
            denied = handles[1].rate_limit("ada", &limits).await?;
        }
        // Where the machine is slower than the limit, none is denied.
        ensure!(!denied.allowed || !exact || period < 200, "no call of 20 is denied: {limits:?}");
        let Some(retry_after) = denied.retry_after.filter(|_| !denied.allowed) else {
            ensure!(denied.allowed, "a denied call is not told when to come again: {denied:?}");
            return Ok(());
        };
        if exact {
            scene.elapse(retry_after - MILLI).await;
            let early = handles[0].rate_limit("ada", &limits).await?;
            ensure!(!early.allowed, "a call is admitted 1 ms before {retry_after:?} have passed");
            ensure_eq!(early.retry_after, Some(MILLI), "what is told a millisecond before");
            scene.elapse(MILLI).await;
        } else {
            scene.elapse(retry_after + scene.slack()).await;
        }
        let answer = handles[1].rate_limit("ada", &limits).await?;
        ensure!(
            answer.allowed,
            "after the {retry_after:?} that were told, the answer is {answer:?}"
        );
        Ok(())
    })
}

/// What each limit counts.
fn counts(answer: &RateLimitStatus) -> Vec<u64> {
    answer.each().iter().map(|standing| standing.count).collect()
}

pub(crate) fn rate_limit_takes_all_or_nothing(bench: &Bench<'_>) -> LawResult {
    let limits = vec(1_u64..16, 2..=8);
    let strategy = (kinds(), limits, vec(vec(1_u64..6, 8), 1..16));
    bench.property(strategy, async |scene, (kind, limits, calls)| {
        let handles = scene.handles(2).await?;
        let mut sums = vec![0; limits.len()];
        for (number, costs) in calls.into_iter().enumerate() {
            let costs = costs.iter().zip(&limits).map(|(cost, most)| *cost.min(most));
            let costs: Vec<_> = costs.collect();
            let each = limits.iter().zip(&costs);
            let all = each.map(|(most, cost)| kind.limit(*most, AGES).cost(*cost));
            let all = RateLimit::all(all);
            let answer = handles[number % 2].rate_limit("ada", &all).await?;
            let fits: Vec<_> =
                (0..limits.len()).map(|at| sums[at] + costs[at] <= limits[at]).collect();
            let allowed = fits.iter().all(|fits| *fits);
            ensure_eq!(answer.allowed, allowed, "whether {costs:?} pass at {sums:?} of {limits:?}");
            if allowed {
                sums.iter_mut().zip(&costs).for_each(|(sum, cost)| *sum += cost);
                ensure_eq!(answer.violated, None, "the limit that failed, of none,");
            } else {
                let named = answer.violated.and_then(|at| fits.get(at).copied());
                ensure_eq!(
                    named,
                    Some(false),
                    "whether the limit that is named lets the call pass"
                );
            }
            ensure_eq!(counts(&answer), sums, "what is counted of {limits:?}");
            let peeked = handles[(number + 1) % 2].rate_limit_peek("ada", &all).await?;
            ensure_eq!(counts(&peeked), sums, "what another handle sees counted of {limits:?}");
        }
        Ok(())
    })
}

pub(crate) fn rate_limit_denied_takes_nothing(bench: &Bench<'_>) -> LawResult {
    let strategy = (kinds(), 2_u64..20, 1_u64..20, 1_usize..5);
    bench.property(strategy, async |scene, (kind, most, used, denials)| {
        let (used, limit) = (used.min(most - 1), kind.limit(most, AGES));
        let handles = scene.handles(2).await?;
        let filled = handles[0].rate_limit("ada", &limit.clone().cost(used)).await?;
        ensure_eq!((filled.allowed, filled.count), (true, used), "the answer to the first call");
        for number in 0..denials {
            let large = limit.clone().cost(most - used + 1);
            let denied = handles[number % 2].rate_limit("ada", &large).await?;
            ensure_eq!((denied.allowed, denied.count), (false, used), "the answer to a large call");
        }
        let rest = handles[1].rate_limit("ada", &limit.clone().cost(most - used)).await?;
        ensure_eq!((rest.allowed, rest.count), (true, most), "the answer to a call that fits");
        Ok(())
    })
}

pub(crate) fn rate_limit_refund_gives_back(bench: &Bench<'_>) -> LawResult {
    let refunds = vec(1_u64..8, 1..5);
    let strategy = (0_u8..3, 1_u64..24, 1_u64..24, refunds);
    bench.property(strategy, async |scene, (kind, most, used, refunds)| {
        let limit = match kind {
            0 => RateLimit::new(most, AGES),
            1 => RateLimit::smooth(most, AGES),
            _ => RateLimit::strict(most, AGES),
        };
        let handles = scene.handles(2).await?;
        let nothing = handles[0].rate_limit_refund("ada", &limit).await?;
        ensure_eq!(nothing.count, 0, "what is counted after a refund of nothing");
        let used = used.min(most);
        handles[0].rate_limit("ada", &limit.clone().cost(used)).await?;
        let mut count = used;
        for (number, refund) in refunds.into_iter().enumerate() {
            let back = limit.clone().cost(refund);
            let answer = handles[number % 2].rate_limit_refund("ada", &back).await?;
            count = count.saturating_sub(refund);
            let told = (answer.count, answer.remaining);
            ensure_eq!(told, (count, most - count), "what is told of {most} after {refund} back");
            let peeked = handles[(number + 1) % 2].rate_limit_peek("ada", &limit).await?;
            ensure_eq!(peeked.count, count, "what another handle sees counted");
        }
        // Exactly as many pass now.
        for number in 0..most - count {
            let answer = handles[0].rate_limit("ada", &limit).await?;
            ensure!(answer.allowed, "call {number} is denied with {count} of {most} counted");
        }
        let answer = handles[1].rate_limit("ada", &limit).await?;
        ensure!(!answer.allowed, "a refund lifts the limit of {most}: {answer:?}");
        Ok(())
    })
}
