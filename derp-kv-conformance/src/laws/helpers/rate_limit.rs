use std::collections::BTreeSet;
use std::time::Duration;

use derp_kv_core::{ErrorKind, Expiry, KvStore, KvStoreExt, RateLimit};
use proptest::sample::select;

use super::LONG;
use super::limits::Kind;
use crate::bench::{Bench, LawResult, at_once};
use crate::model::{Deadline, Known, Span};
use crate::resolution::most_left;
use crate::violation::{Violation, ensure, ensure_eq};

pub(crate) fn rate_limit_is_exact(bench: &Bench<'_>) -> LawResult {
    const CALLS: u64 = 24;
    bench.race(async |scene, round| {
        let limit = u64::from(round % 30);
        let handles = scene.handles(3).await?;
        let callers = (0..CALLS as usize).map(|caller| handles[caller % 3].clone());
        let answers = at_once(callers, |_, kv| async move {
            Ok(kv.rate_limit(format!("{round}"), &RateLimit::new(limit, LONG)).await?)
        })
        .await?;
        let allowed = answers.iter().filter(|answer| answer.allowed).count() as u64;
        ensure_eq!(allowed, limit.min(CALLS), "the number allowed, of {limit} in {CALLS},");
        let counts: BTreeSet<_> = answers.iter().map(|answer| answer.count).collect();
        ensure_eq!(counts, (1..=CALLS).collect(), "what was counted");
        for answer in answers {
            let fits = answer.allowed == (answer.count <= limit)
                && answer.limit == limit
                && answer.remaining == limit.saturating_sub(answer.count)
                && answer.reset_after <= most_left(LONG)
                && answer.retry_after.is_none() == (answer.allowed || limit == 0)
                && answer
                    .retry_after
                    .is_none_or(|after| after <= most_left(LONG) && !after.is_zero());
            ensure!(fits, "with a limit of {limit} in {LONG:?}, an answer is {answer:?}");
        }
        Ok(())
    })
}

pub(crate) fn rate_limit_window_ends(bench: &Bench<'_>) -> LawResult {
    let window = if bench.is_virtual() { 1_u64..100_000 } else { 80_u64..160 };
    bench.timed_property((window, 1_u64..4), async |scene, (window, limit)| {
        let window = Duration::from_millis(window);
        let handles = scene.handles(2).await?;
        let ask = async |number: u64| {
            let kv = &handles[usize::from(number % 2 == 1)];
            Span::of(kv.rate_limit("ada", &RateLimit::new(limit, window))).await
        };
        let (first, began) = ask(0).await;
        ensure_eq!(first?.count, 1, "the first count");
        let ends = Deadline::new(window, began);
        // Denied calls do not make the window longer.
        let (step, denied) = (window / 16, 5);
        for number in 1..=limit + denied {
            let (answer, span) = ask(number).await;
            let answer = answer?;
            if ends.seen_by(span, scene.slack()) == Known::Present {
                ensure_eq!(answer.allowed, number < limit, "whether call {number} is allowed");
                ensure_eq!(answer.count, number + 1, "the count");
                let fits = answer.retry_after.is_none_or(|after| after <= most_left(window));
                ensure!(fits, "retry_after is {:?} of {window:?}", answer.retry_after);
            }
            scene.elapse(step).await;
        }
        // No longer than to the end of the window as it was first told.
        let passed = step * u32::try_from(limit + denied).unwrap_or(0);
        scene.elapse(window.saturating_sub(passed) + scene.slack()).await;
        let (answer, span) = ask(0).await;
        let answer = answer?;
        let over = ends.seen_by(span, scene.slack()) == Known::Absent;
        ensure!(!over || answer.allowed, "a call is denied after the window: {answer:?}");
        Ok(())
    })?;
    // Exactly when it was told.
    let window = if bench.is_virtual() { 1_u64..100_000 } else { 40_u64..80 };
    bench.timed_property(window, async |scene, window| {
        let handles = scene.handles(2).await?;
        let limit = RateLimit::new(1, Duration::from_millis(window));
        handles[0].rate_limit("bob", &limit).await?;
        let denied = handles[1].rate_limit("bob", &limit).await?;
        let Some(retry_after) = denied.retry_after else { return Ok(()) };
        scene.elapse(retry_after + scene.slack()).await;
        let allowed = handles[1].rate_limit("bob", &limit).await?;
        ensure_eq!((allowed.allowed, allowed.count), (true, 1), "after retry_after, the answer");
        Ok(())
    })
}

pub(crate) fn rate_limit_repairs_immortal_counters(bench: &Bench<'_>) -> LawResult {
    bench.property((1_u64..100, 1_i64..1_000), async |scene, (limit, count)| {
        let key = b"derp:ratelimit:ada";
        // As a crash between a count and its expiry leaves it.
        scene.store.set(key, count.to_string().as_bytes(), None).await?;
        for kv in scene.handles(2).await? {
            let answer = kv.rate_limit("ada", &RateLimit::new(limit, LONG)).await?;
            let fits = answer.reset_after <= most_left(LONG);
            ensure!(fits, "the window of {LONG:?} ends in {:?}", answer.reset_after);
            let expiry = scene.store.ttl(key).await?.and_then(Expiry::remaining);
            let mortal = expiry.is_some_and(|left| left <= most_left(LONG));
            ensure!(mortal, "the counter expires in {expiry:?}, the window in {LONG:?}");
        }
        Ok(())
    })
}

pub(crate) fn rate_limit_counts_costs(bench: &Bench<'_>) -> LawResult {
    let costs = proptest::collection::vec(1_u64..12, 1..12);
    bench.property((10_u64..40, costs), async |scene, (most, costs)| {
        let handles = scene.handles(2).await?;
        let limit = RateLimit::new(most, LONG);
        for cost in [0, most + 1, u64::MAX] {
            let refused = handles[0].rate_limit("ada", &limit.clone().cost(cost)).await;
            let kind = refused.err().map(|error| error.kind());
            ensure_eq!(kind, Some(ErrorKind::InvalidArgument), "the error of a cost of {cost}");
        }
        let mut sum = 0;
        for (number, cost) in costs.into_iter().enumerate() {
            let cost = cost.min(most);
            let kv = &handles[number % 2];
            // Peeking tells what the call will come to, and counts nothing.
            let peeked = kv.rate_limit_peek("ada", &limit.clone().cost(cost)).await?;
            ensure_eq!(peeked.count, sum, "the count that is peeked at");
            sum += cost;
            let answer = kv.rate_limit("ada", &limit.clone().cost(cost)).await?;
            ensure_eq!(answer.count, sum, "the count");
            ensure_eq!(answer.allowed, sum <= most, "whether {sum} of {most} is allowed");
            ensure_eq!(answer.remaining, most.saturating_sub(sum), "what remains");
            ensure_eq!(peeked.allowed, answer.allowed, "whether it was foretold as allowed");
        }
        Ok(())
    })
}

pub(crate) fn rate_limit_reset_forgets(bench: &Bench<'_>) -> LawResult {
    bench.property(1_u64..10, async |scene, most| {
        let handles = scene.handles(2).await?;
        let limit = RateLimit::new(most, LONG);
        let reset = handles[0].rate_limit_reset("ada", &limit).await?;
        ensure_eq!(reset, false, "reset of what was never counted");
        for _ in 0..=most {
            handles[0].rate_limit("ada", &limit).await?;
            handles[0].rate_limit("bob", &limit).await?;
        }
        ensure_eq!(handles[1].rate_limit_reset("ada", &limit).await?, true, "reset");
        let answer = handles[0].rate_limit("ada", &limit).await?;
        ensure_eq!((answer.allowed, answer.count), (true, 1), "the answer after reset");
        let other = handles[1].rate_limit("bob", &limit).await?;
        ensure_eq!(other.allowed, false, "whether another id is allowed");
        Ok(())
    })
}

pub(crate) fn rate_limit_binds_at_once(bench: &Bench<'_>) -> LawResult {
    let windows = if bench.is_virtual() { 1_u64..100_000 } else { 40_u64..80 };
    bench.timed_property((1_u64..5, windows), async |scene, (most, window)| {
        let handles = scene.handles(2).await?;
        let (long, window) = (RateLimit::new(most, LONG * 60), Duration::from_millis(window));
        for _ in 0..=most {
            handles[0].rate_limit("ada", &long).await?;
        }
        let short = RateLimit::new(most, window);
        let denied = handles[1].rate_limit("ada", &short).await?;
        ensure_eq!(denied.allowed, false, "whether a call above the limit is allowed");
        let Some(retry_after) = denied.retry_after else {
            return Err(Violation::new("a denied call is not told when to try again"));
        };
        ensure!(
            retry_after <= most_left(window),
            "a window of {window:?} ends after {retry_after:?}"
        );
        scene.elapse(retry_after + scene.slack()).await;
        let allowed = handles[0].rate_limit("ada", &short).await?;
        ensure_eq!((allowed.allowed, allowed.count), (true, 1), "after retry_after, the answer");
        Ok(())
    })?;
    // What a step decides binds in both directions.
    let strategy = (select(&Kind::ALL[..]), 1_u64..10, 1_u64..10, 1_u64..10);
    bench.property(strategy, async |scene, (kind, used, fewer, more)| {
        let handles = scene.handles(2).await?;
        let of = |most: u64| kind.limit(most, LONG * 10_000);
        handles[0].rate_limit("ada", &of(used).cost(used)).await?;
        let lowered = of(fewer.min(used));
        let denied = handles[1].rate_limit("ada", &lowered).await?;
        ensure!(!denied.allowed, "{used} are counted, and a call under {lowered:?} is admitted");
        let raised = of(used + more);
        let answer = handles[0].rate_limit("ada", &raised).await?;
        // A smooth limit keeps the time that it owes: a unit of a higher limit takes less of it.
        let strict = kind == Kind::Strict;
        ensure!(!strict || answer.allowed, "{used} are counted, and {raised:?} denies");
        let denied = handles[1].rate_limit("ada", &raised.clone().cost(used + more)).await?;
        ensure!(!denied.allowed, "{used} are counted, and {raised:?} forgets them");
        Ok(())
    })?;
    // So does a shorter window: it waits for no longer than it is itself.
    let windows = if bench.is_virtual() { 60_u64..100_000 } else { 60_u64..120 };
    let strategy = (select(&Kind::ALL[..]), 1_u64..5, windows);
    bench.timed_property(strategy, async |scene, (kind, most, window)| {
        let handles = scene.handles(2).await?;
        let window = Duration::from_millis(window);
        handles[0].rate_limit("ada", &kind.limit(most, 4 * window).cost(most)).await?;
        let short = kind.limit(most, window);
        let denied = handles[1].rate_limit("ada", &short.clone().cost(most)).await?;
        ensure_eq!(denied.allowed, false, "whether a call above the limit is allowed");
        let retry_after = denied.retry_after.unwrap_or(Duration::MAX);
        // A counter lasts for a sub-window of the longer window more.
        let most_after = most_left(window + window / 10 + Duration::from_millis(2));
        ensure!(retry_after <= most_after, "a period of {window:?} is over after {retry_after:?}");
        scene.elapse(retry_after + scene.slack()).await;
        let allowed = handles[0].rate_limit("ada", &short.cost(most)).await?;
        ensure!(allowed.allowed, "after retry_after, the answer is {allowed:?}");
        Ok(())
    })
}
