use std::time::Duration;

use derp_kv_core::{Ask, Expiry, KvStore, RateLimit};
use proptest::collection::vec;
use proptest::prelude::*;

use super::Held;
use crate::bench::{Bench, LawResult};
use crate::input::{Blob, shown};
use crate::model::{Deadline, Known, Span};
use crate::resolution;
use crate::violation::{ensure, ensure_eq};

/// Limits that one call fills, for a period of so many milliseconds.
fn full_after_one(periods: std::ops::Range<u64>) -> impl Strategy<Value = RateLimit> + Clone {
    let limits = vec((1_u64..6, 1_u64..4), 1..=8);
    (any::<bool>(), periods, limits).prop_map(|(smooth, period, limits)| {
        let period = Duration::from_millis(period);
        // The first is the one that denies, and lasts longest.
        RateLimit::all(limits.into_iter().enumerate().map(|(place, (limit, spare))| {
            let most = if place == 0 { limit } else { limit + spare };
            let window = if place == 0 { period } else { period.div_f64(2.0).max(MILLI) };
            if smooth { RateLimit::smooth(most, window) } else { RateLimit::strict(most, window) }
                .cost(limit)
        }))
    })
}

const MILLI: Duration = Duration::from_millis(1);

pub(crate) fn denial_writes_nothing(bench: &Bench<'_>) -> LawResult {
    let promised = u64::try_from(resolution::promised().as_millis()).unwrap_or(1);
    let periods = match bench.is_virtual() {
        true => 20 * promised..60_000 * promised,
        false => 60.max(3 * promised)..120.max(4 * promised),
    };
    let asks = vec(any::<bool>(), 1..8);
    bench.timed_property((full_after_one(periods), asks), async |scene, (limits, asks)| {
        let (key, kv) = (b"k", &scene.handles(2).await?);
        let exact = scene.is_virtual() && resolution::promised() <= resolution::FINEST;
        let peek = limits.step(Ask::Peek)?;
        ensure!(kv[1].step(key, &peek).await?.admitted(), "a look at an absent key is denied");
        ensure_eq!(scene.store.get(key).await?, None, "what a look leaves of an absent key");
        let (first, span) = Span::of(kv[0].step(key, &limits.step(Ask::Admit)?)).await;
        ensure!(first?.admitted(), "the first call is denied");
        let (before, look) = Span::of(scene.store.get_with_ttl(key)).await;
        let before: Held = before?;
        let Some((value, expiry)) = before else {
            // It has expired already, where the machine was slow.
            ensure!(!scene.is_virtual(), "the first call leaves nothing");
            return Ok(());
        };
        let whole = expiry.remaining().unwrap_or_default();
        let pause = whole / 16;
        for (number, admit) in asks.iter().enumerate() {
            let step = limits.step(if *admit { Ask::Admit } else { Ask::Peek })?;
            let stepped = kv[number % 2].step(key, &step).await?;
            let (after, again) = Span::of(scene.store.get_with_ttl(key)).await;
            let after: Held = after?;
            let passed = again.ended - look.began;
            if !scene.is_virtual() && passed * 2 >= whole {
                // It was late: the limits may have let it pass.
                return Ok(());
            }
            let asked = if *admit { "a call" } else { "a look" };
            ensure!(
                !stepped.admitted(),
                "{asked} is admitted {passed:?} after the limit was filled"
            );
            let Some((found, Expiry::In(left))) = &after else {
                ensure!(false, "{asked} that is denied leaves {}", shown(&after));
                return Ok(());
            };
            ensure_eq!(Blob(found.to_vec()), Blob(value.to_vec()), "the value after {asked}");
            let most = whole.saturating_sub(again.began - look.ended) + resolution::promised();
            let fits = *left <= most && *left + passed + resolution::promised() >= whole;
            ensure!(fits, "of {whole:?}, {left:?} are left {passed:?} later, after {asked}");
            scene.elapse(pause).await;
        }
        // What nothing has touched ends when it was to.
        scene.elapse(whole + scene.slack()).await;
        let (after, again) = Span::of(scene.store.get(key)).await;
        let ends =
            Deadline::new(whole + resolution::promised(), span).seen_by(again, scene.slack());
        let gone = after?.is_none();
        ensure!(gone || ends != Known::Absent, "the key outlives its TTL of {whole:?}");
        ensure!(gone || !exact, "the key outlives its TTL of {whole:?}");
        // And of what has no expiry, a look changes nothing.
        scene.store.set(key, &value, None).await?;
        kv[0].step(key, &peek).await?;
        let then = scene.store.get_with_ttl(key).await?;
        ensure_eq!(
            then,
            Some((value, Expiry::Never)),
            "what a look leaves of a value without expiry"
        );
        Ok(())
    })
}
