//! A caller that waits a little for the refresh that it has begun.

use std::time::Duration;

use derp_kv_core::{Freshness, GuardedGet, Source, StaleCause};
use futures_util::future::join_all;
use tokio::time::{Instant, advance, sleep};

use crate::stage::{Answer, KEY, OPTIONS, SLOW, STALE, Stage, TTL, cause, is_stale};

/// A soft time-out of zero was taken for none at all, which waited for ever (bentocache#34).
#[tokio::test(start_paused = true)]
async fn zero_waits_for_nothing() {
    let stage = Stage::stale(OPTIONS.soft_timeout(Duration::ZERO)).await;
    let (got, took) = stage.origin.get(&stage.caches[0]).await;
    assert_eq!((got.value, took), (1, Duration::ZERO));
    assert_eq!(cause(&got), StaleCause::Refreshing);
    stage.settle().await;
    assert_eq!(stage.origin.begun(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_one_serves_the_stale_value_and_the_refresh_goes_on() {
    let stage = Stage::stale(OPTIONS.soft_timeout(SLOW / 5)).await;
    let (got, took) = stage.origin.get(&stage.caches[0]).await;
    assert_eq!((got.value, cause(&got), took), (1, StaleCause::TimedOut, SLOW / 5));
    // Whoever did not begin it waits for nothing.
    let (got, took) = stage.origin.get(&stage.caches[0]).await;
    assert_eq!((got.value, cause(&got), took), (1, StaleCause::Refreshing, Duration::ZERO));
    stage.settle().await;
    let (got, _) = stage.origin.get(&stage.caches[0]).await;
    assert_eq!((got.value, got.source), (2, Source::Store));
}

#[tokio::test(start_paused = true)]
async fn a_longer_one_brings_the_new_value() {
    let stage = Stage::stale(OPTIONS.soft_timeout(SLOW * 2)).await;
    let (got, took) = stage.origin.get(&stage.caches[0]).await;
    assert_eq!((got.value, got.freshness, got.source), (2, Freshness::Fresh, Source::Computed));
    assert_eq!(took, SLOW);
}

/// Where the value ends while its caller waits, that one has nothing but the refresh.
#[tokio::test(start_paused = true)]
async fn one_longer_than_what_is_left_ends_with_the_value() {
    for (left, soft) in [(SLOW / 2, SLOW * 2), (SLOW / 2, SLOW * 3 / 4), (SLOW * 3 / 2, SLOW * 2)] {
        let stage = Stage::stale(OPTIONS.soft_timeout(soft)).await;
        advance(STALE - left).await;
        let (got, took) = stage.origin.get(&stage.caches[0]).await;
        assert_eq!((got.value, got.freshness, took), (2, Freshness::Fresh, SLOW), "{left:?}");
    }
    // Without a soft time-out nothing is waited for, however little is left.
    let stage = Stage::stale(OPTIONS).await;
    advance(STALE - Duration::from_millis(1)).await;
    let (got, took) = stage.origin.get(&stage.caches[0]).await;
    assert_eq!((got.value, took), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_failure_or_a_panic_within_it_serves_the_stale_value() {
    for answer in [Answer::Fails, Answer::Panics] {
        let stage = Stage::stale(OPTIONS.soft_timeout(SLOW * 2)).await;
        stage.origin.answers(answer);
        let (got, took) = stage.origin.get(&stage.caches[0]).await;
        assert_eq!((got.value, cause(&got), took), (1, StaleCause::Failed, SLOW), "{answer:?}");
        stage.settle().await;
    }
}

/// As before, where the value ends before the refresh fails: then there is nothing to serve.
#[tokio::test(start_paused = true)]
async fn a_failure_after_the_end_of_the_value_is_told() {
    for answer in [Answer::Fails, Answer::Panics] {
        let stage = Stage::stale(OPTIONS.soft_timeout(SLOW * 2)).await;
        advance(STALE - SLOW / 2).await;
        stage.origin.answers(answer);
        let error = stage.origin.try_get(&stage.caches[0]).await.unwrap_err();
        let expected = match answer {
            Answer::Fails => derp_kv_core::ErrorKind::Backend,
            _ => derp_kv_core::ErrorKind::Abandoned,
        };
        assert_eq!(error.kind(), expected);
    }
}

/// A value that is fresh is served as it is: nobody waits for a fresher one.
#[tokio::test(start_paused = true)]
async fn an_early_refresh_is_not_waited_for() {
    let stage = Stage::new(OPTIONS.early(0.5).soft_timeout(SLOW * 2));
    stage.origin.get(&stage.caches[0]).await;
    advance(TTL * 3 / 4).await;
    let (got, took) = stage.origin.get(&stage.caches[0]).await;
    assert_eq!((got.value, got.freshness, took), (1, Freshness::Fresh, Duration::ZERO));
    stage.settle().await;
    assert_eq!(stage.origin.get(&stage.caches[1]).await.0.value, 2);
}

/// Under load, soft time-outs left the old value in place (FusionCache#560). The refresh lands, and it is
/// one.
#[tokio::test(start_paused = true)]
async fn under_load_the_refresh_lands() {
    let stage = Stage::stale(OPTIONS.soft_timeout(SLOW / 5)).await;
    for round in 2..5 {
        let calls = (0..200).map(|n| stage.origin.get(&stage.caches[n % 2]));
        for (got, took) in join_all(calls).await {
            assert_eq!(got.value, round - 1);
            assert!(took <= SLOW / 5, "{took:?}");
        }
        stage.settle().await;
        for cache in &stage.caches {
            let (got, _) = stage.origin.get(cache).await;
            assert_eq!((got.value, is_stale(&got)), (round, false));
        }
        assert_eq!(stage.origin.begun(), round);
        advance(TTL).await;
    }
}

/// The time-out of a caller is not the refresh's: dropped while it waits, the refresh goes on.
#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_within_it_ends_nothing() {
    let stage = Stage::stale(OPTIONS.soft_timeout(SLOW * 2)).await;
    let began = Instant::now();
    let call = stage.origin.try_get(&stage.caches[0]);
    assert!(tokio::time::timeout(SLOW / 5, call).await.is_err());
    stage.settle().await;
    assert_eq!(began.elapsed(), SLOW);
    assert_eq!(stage.caches[1].peek(KEY).await.unwrap(), Some(2));
}

/// During a cool-down there is nothing to wait for.
#[tokio::test(start_paused = true)]
async fn during_a_cool_down_nobody_waits() {
    let stage = Stage::stale(OPTIONS.soft_timeout(SLOW * 2)).await;
    stage.origin.answers(Answer::Fails);
    stage.origin.get(&stage.caches[0]).await;
    for cache in &stage.caches {
        let (got, took) = stage.origin.get(cache).await;
        assert_eq!((got.value, took), (1, Duration::ZERO));
        sleep(SLOW).await;
    }
    assert_eq!(stage.origin.begun(), 2);
}

/// Without stale data it means nothing, and is refused by name.
#[tokio::test(start_paused = true)]
async fn without_stale_data_it_is_refused() {
    let stage = Stage::new(GuardedGet::new(TTL).soft_timeout(SLOW));
    let error = stage.origin.try_get(&stage.caches[0]).await.unwrap_err();
    assert!(error.to_string().contains("soft_timeout"), "{error}");
    assert_eq!(stage.origin.begun(), 0);
}
