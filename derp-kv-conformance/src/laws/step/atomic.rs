use std::collections::BTreeMap;
use std::time::Duration;

use derp_kv_core::{Ask, ErrorKind, KvStore, RateLimit, Stepped};

use super::times::Times;
use super::{nonce, seen};
use crate::bench::{Bench, LawResult, at_once};
use crate::model::{Deadline, Span};
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

const CALLS: usize = 12;

/// So long that nothing comes back during a round.
const LONG: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A call of a race that was made.
#[derive(Debug)]
struct Call {
    cost: u64,
    stepped: Stepped,
    nonce: Option<[u8; 8]>,
}

impl Call {
    fn count(&self) -> u64 {
        self.stepped.standings().first().map_or(0, |standing| standing.count)
    }
}

pub(crate) fn is_atomic(bench: &Bench<'_>) -> LawResult {
    bench.race(async |scene, round| {
        let most = u64::from(round % 15) + 1;
        let limits = match round % 4 {
            0 => RateLimit::strict(most, LONG),
            1 => RateLimit::smooth(most, LONG),
            2 => RateLimit::all([RateLimit::strict(most, LONG), RateLimit::strict(50, 2 * LONG)]),
            _ => RateLimit::all([RateLimit::smooth(most, LONG), RateLimit::smooth(50, 2 * LONG)]),
        };
        let costly = round % 3 == 0;
        let cost = |number: usize| if costly { (number as u64 % 4 + 1).min(most) } else { 1 };
        let key = format!("{round}/").into_bytes();
        let (admits, span) = Span::of(race(scene, &key, Ask::Admit, &limits, cost)).await;
        let counted = admitted(admits?, most)?;
        left(scene, &key, &limits, counted.last(), span).await?;
        let held = counted.last().map_or(0, Call::count);
        let (refunds, span) = Span::of(race(scene, &key, Ask::Refund, &limits, cost)).await;
        let refunded = refunded(refunds?, held)?;
        left(scene, &key, &limits, refunded.last().or(counted.last()), span).await
    })
}

/// Makes racing calls on several handles, and returns those that were made.
///
/// A store that only compares and swaps may be outrun, and must say then that nothing was applied.
async fn race(
    scene: &mut Scene<'_>,
    key: &[u8],
    ask: Ask,
    limits: &RateLimit,
    cost: impl Fn(usize) -> u64,
) -> Result<Vec<Call>, Violation> {
    let handles = scene.handles(3).await?;
    let callers = (0..CALLS).map(|caller| handles[caller % 3].clone());
    let answers = at_once(callers, |number, kv| {
        let (key, cost) = (key.to_vec(), cost(number));
        let step = limits.clone().cost(cost).step(ask);
        async move {
            let step = step?;
            match kv.step(&key, &step).await {
                Ok(stepped) => Ok(Some(Call { cost, stepped, nonce: nonce(&step) })),
                Err(error)
                    if error.kind() == ErrorKind::Unavailable
                        && error.is_transient()
                        && !error.may_have_applied() =>
                {
                    Ok(None)
                }
                Err(error) => Err(error.into()),
            }
        }
    })
    .await?;
    Ok(answers.into_iter().flatten().collect())
}

/// The admitted calls in the order in which they were counted: one in which each finds what those
/// before it have left.
fn admitted(calls: Vec<Call>, most: u64) -> Result<Vec<Call>, Violation> {
    let (mut admitted, denied): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|call| call.stepped.admitted());
    admitted.sort_by_key(Call::count);
    let mut sums = BTreeMap::from([(0, 0)]);
    let mut sum = 0;
    for (number, call) in admitted.iter().enumerate() {
        sum += call.cost;
        ensure_eq!(call.count(), sum, "the count of call {number}, of a cost of {},", call.cost);
        sums.insert(sum, number);
    }
    ensure!(sum <= most, "{sum} were admitted of {most}");
    for call in &denied {
        let (count, cost) = (call.count(), call.cost);
        let found = sums.contains_key(&count);
        ensure!(found, "a denied call found {count} counted, which never were: {sums:?}");
        ensure!(count + cost > most, "a call of a cost of {cost} was denied at {count} of {most}");
    }
    Ok(admitted)
}

/// The refunds in the order in which they were made.
fn refunded(mut calls: Vec<Call>, held: u64) -> Result<Vec<Call>, Violation> {
    // At zero they all tell the same.
    calls.sort_by_key(|call| std::cmp::Reverse(call.count()));
    let all: u64 = calls.iter().map(|call| call.cost).sum();
    let last = calls.last().map_or(held, Call::count);
    ensure_eq!(last, held.saturating_sub(all), "what is left of {held} without {all}");
    let mut rest = held;
    for call in &calls {
        ensure!(call.stepped.admitted(), "a refund was denied: {call:?}");
        if call.count() == 0 {
            break;
        }
        rest = rest.saturating_sub(call.cost);
        ensure_eq!(call.count(), rest, "the count after a refund of {}", call.cost);
    }
    Ok(calls)
}

/// Checks that the key holds what the last call has written.
async fn left(
    scene: &mut Scene<'_>,
    key: &[u8],
    limits: &RateLimit,
    last: Option<&Call>,
    span: Span,
) -> Result<(), Violation> {
    let (held, look) = Span::of(scene.store.get_with_ttl(key)).await;
    let held = held?;
    let stepped = limits.step(Ask::Peek)?.apply(seen(&held))?.1;
    let counts = |stepped: &Stepped| {
        stepped.standings().iter().map(|standing| standing.count).collect::<Vec<_>>()
    };
    let Some(last) = last else { return Ok(()) };
    ensure_eq!(counts(&stepped), counts(&last.stepped), "what is counted in the end");
    let Some((value, expiry)) = held else { return Ok(()) };
    let written = value.get(1..9).and_then(|bytes| bytes.try_into().ok());
    ensure_eq!(written, last.nonce, "the number of the last write");
    let ttl = Duration::from_nanos(Times::read(&value).ttl);
    Deadline::new(ttl, span).check(expiry, look, scene.slack())
}
