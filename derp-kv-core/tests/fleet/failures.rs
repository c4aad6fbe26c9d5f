//! Stale data where the origin fails: what has gone wrong in other caches, each as a test.

use std::time::Duration;

use derp_kv_core::{ErrorKind, GuardedGet, KvStore, KvStoreExt, StaleCause};
use derp_kv_memory::MemoryStore;
use tokio::time::{Instant, advance, sleep};

use crate::common::scripted::{Failure, scripted};
use crate::stage::{
    Answer, BACKOFF, KEY, LOCK, LOCK_TTL, OPTIONS, Origin, SLOW, STALE, Stage, TTL, cause, is_stale,
};

/// Each failure stored the value anew, which was then served for ever (ZiggyCreatures/FusionCache#212).
/// A failure must not move the end of the value, and after it there is nothing to serve.
#[tokio::test(start_paused = true)]
async fn no_failure_moves_the_end_of_the_value() {
    let stage = Stage::stale(OPTIONS).await;
    let end = Instant::now() + STALE;
    stage.origin.answers(Answer::Fails);
    while Instant::now() + Duration::from_secs(7) < end {
        let (got, took) = stage.origin.get(&stage.caches[0]).await;
        assert_eq!((got.value, took), (1, Duration::ZERO));
        stage.settle().await;
        assert_eq!(stage.left().await, Some(end - Instant::now()));
        sleep(Duration::from_secs(7)).await;
    }
    assert!(stage.origin.begun() > 10, "it is tried again");
    tokio::time::sleep_until(end).await;
    for cache in &stage.caches {
        let error = stage.origin.try_get(cache).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Backend | ErrorKind::Failing), "{error}");
    }
}

/// The copy in a process outlived that in the store (FusionCache#229). There is one copy, and what is
/// gone there is gone for everybody.
#[tokio::test(start_paused = true)]
async fn what_is_gone_from_the_store_is_served_by_no_process() {
    let stage = Stage::stale(OPTIONS).await;
    for cache in &stage.caches {
        assert!(is_stale(&stage.origin.get(cache).await.0));
    }
    stage.settle().await;
    assert!(stage.data.delete(KEY).await.unwrap());
    let (got, took) = stage.origin.get(&stage.caches[1]).await;
    assert_eq!((got.value, took), (3, SLOW));
}

/// A stale time that was shorter than the TTL shortened the TTL (FusionCache#115). It is time beyond the
/// TTL.
#[tokio::test(start_paused = true)]
async fn a_stale_time_shorter_than_the_ttl_shortens_nothing() {
    let stage = Stage::new(GuardedGet::new(TTL).stale(Duration::from_secs(1)));
    stage.origin.get(&stage.caches[0]).await;
    advance(TTL - Duration::from_millis(1)).await;
    let (got, took) = stage.origin.get(&stage.caches[1]).await;
    assert_eq!((got.value, is_stale(&got), took), (1, false, Duration::ZERO));
    advance(Duration::from_millis(1)).await;
    assert!(is_stale(&stage.origin.get(&stage.caches[1]).await.0));
    assert_eq!(stage.origin.begun(), 1);
    stage.settle().await;
    assert_eq!(stage.origin.begun(), 2);
}

/// The key in the store lived for a day, whatever its TTL was (FusionCache#269). It lives for TTL and
/// stale time.
#[tokio::test(start_paused = true)]
async fn the_key_lives_for_ttl_and_stale_time() {
    for (options, lives) in [(GuardedGet::new(TTL), TTL), (OPTIONS, TTL + STALE)] {
        let stage = Stage::new(options);
        stage.origin.get(&stage.caches[0]).await;
        assert_eq!((stage.left().await, options.stored_for()), (Some(lives), Some(lives)));
        stage.caches[1].put(KEY, &7).await.unwrap();
        assert_eq!(stage.left().await, Some(lives));
    }
}

/// Jitter was added to the pause after a failure (FusionCache#374). It is for TTLs alone.
#[tokio::test(start_paused = true)]
async fn jitter_moves_no_cool_down() {
    for _ in 0..20 {
        let stage = Stage::new(OPTIONS.jitter(0.9));
        stage.origin.answers(Answer::Fails);
        stage.origin.try_get(&stage.caches[0]).await.unwrap_err();
        let left = stage.data.ttl(LOCK).await.unwrap().unwrap().remaining();
        assert_eq!(left, Some(BACKOFF));
        let error = stage.origin.try_get(&stage.caches[1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failing);
        assert_eq!(error.retry_after(), Some(BACKOFF + Duration::from_millis(1)));
    }
}

/// What one process took for expired was removed from the store, and the others had no stale data
/// (FusionCache#553). The end of a TTL removes nothing.
#[tokio::test(start_paused = true)]
async fn a_value_whose_ttl_has_ended_is_there_for_every_process() {
    let stage = Stage::stale(OPTIONS).await;
    stage.origin.answers(Answer::Fails);
    assert!(is_stale(&stage.origin.get(&stage.caches[0]).await.0));
    stage.settle().await;
    let (got, took) = stage.origin.get(&stage.caches[1]).await;
    assert_eq!((got.value, is_stale(&got), took), (1, true, Duration::ZERO));
}

/// After everything was cleared, the next failing computation brought the old value back
/// (FusionCache#648). What was invalidated is nowhere.
#[tokio::test(start_paused = true)]
async fn a_failure_after_an_invalidation_revives_nothing() {
    let stage = Stage::stale(OPTIONS).await;
    stage.origin.answers(Answer::Fails);
    stage.origin.get(&stage.caches[0]).await;
    stage.settle().await;
    assert!(stage.caches[1].invalidate(KEY).await.unwrap());
    for cache in &stage.caches {
        let error = stage.origin.try_get(cache).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Backend | ErrorKind::Failing), "{error}");
        assert_eq!(cache.peek(KEY).await.unwrap(), None);
    }
}

/// The time-out of the store was ignored on the first stale hit (FusionCache#534). Whatever the store does
/// to the lock, the value that was read is served.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_at_the_lock_takes_the_stale_value_from_nobody() {
    // The lock, and the look behind it.
    for (call, failure) in
        [(1, Failure::Before), (1, Failure::After), (2, Failure::Before), (2, Failure::After)]
    {
        let data = MemoryStore::new();
        data.set(KEY, b"1", Some(STALE)).await.unwrap();
        let (kv, origin) = (scripted(&data), Origin::new());
        kv.layer().fail(call, failure);
        let (value, freshness) = origin.try_guarded(&kv, &OPTIONS).await.unwrap();
        // The lock whose answer was lost is found by its token.
        let recovers = (call, failure) == (1, Failure::After);
        assert_eq!((value, origin.begun()), (1, u32::from(recovers)), "{call} {failure:?}");
        assert!(recovers || matches!(freshness, derp_kv_core::Freshness::Stale { .. }));
        sleep(LOCK_TTL).await;
        assert_eq!(data.get(LOCK).await.unwrap(), None);
    }
}

/// A fallback was stored over a newer value (jaemk/cached 4.1). A failure writes nothing to the value.
#[tokio::test(start_paused = true)]
async fn a_failed_refresh_writes_nothing_over_a_newer_value() {
    let stage = Stage::stale(OPTIONS).await;
    stage.origin.answers(Answer::Fails);
    assert!(is_stale(&stage.origin.get(&stage.caches[0]).await.0));
    sleep(SLOW / 2).await;
    stage.caches[1].put(KEY, &7).await.unwrap();
    stage.settle().await;
    for cache in &stage.caches {
        let (got, took) = stage.origin.get(cache).await;
        assert_eq!((got.value, is_stale(&got), took), (7, false, Duration::ZERO));
    }
    assert_eq!(stage.lock().await, None, "a write ends the cool-down");
}

/// As before, where the refresh succeeds: what it computed is older than what was written meanwhile.
#[tokio::test(start_paused = true)]
async fn a_refresh_stores_nothing_over_a_newer_value() {
    let stage = Stage::stale(OPTIONS).await;
    assert!(is_stale(&stage.origin.get(&stage.caches[0]).await.0));
    sleep(SLOW / 2).await;
    stage.caches[1].put(KEY, &7).await.unwrap();
    stage.settle().await;
    let (got, _) = stage.origin.get(&stage.caches[0]).await;
    // It finds its lock gone and takes its value back, which may take the newer one with it.
    assert!(got.value == 7 || got.value == 3, "{got:?}");
}

/// The least time between two tries was counted from the beginning of a slow one, which had then
/// passed already (c15t/c15t pull request 1119). It counts from the end.
#[tokio::test(start_paused = true)]
async fn a_cool_down_counts_from_the_end_of_the_computation() {
    let slow = BACKOFF * 2;
    let stage = Stage::stale(OPTIONS).await;
    stage.origin.answers(Answer::Fails);
    stage.origin.takes(slow);
    stage.origin.get(&stage.caches[0]).await;
    stage.settle().await;
    let ended = Instant::now();
    assert_eq!(stage.origin.begun(), 2);
    while ended.elapsed() + Duration::from_secs(1) < BACKOFF {
        sleep(Duration::from_secs(1)).await;
        for cache in &stage.caches {
            assert!(is_stale(&stage.origin.get(cache).await.0));
        }
    }
    assert_eq!(stage.origin.begun(), 2, "not before the cool-down has ended");
    sleep(Duration::from_secs(1) + Duration::from_millis(1)).await;
    stage.origin.get(&stage.caches[1]).await;
    sleep(SLOW).await;
    assert_eq!(stage.origin.begun(), 3, "and then at once");
}

/// A process that was told that its refresh failed says so; another one cannot know.
#[tokio::test(start_paused = true)]
async fn a_failed_refresh_is_told_where_it_is_known() {
    let stage = Stage::stale(OPTIONS).await;
    stage.origin.answers(Answer::Fails);
    assert_eq!(cause(&stage.origin.get(&stage.caches[0]).await.0), StaleCause::Refreshing);
    stage.settle().await;
    assert_eq!(cause(&stage.origin.get(&stage.caches[0]).await.0), StaleCause::Failed);
    assert_eq!(cause(&stage.origin.get(&stage.caches[1]).await.0), StaleCause::Refreshing);
    stage.settle().await;
    stage.stores[1].invalidate(KEY).await.unwrap();
    assert_eq!(stage.lock().await, None, "the cool-down has ended");
}

/// An invalidation during a refresh that then fails ends its cool-down before it begins, for this process
/// as for all others.
#[tokio::test(start_paused = true)]
async fn a_write_elsewhere_during_a_failing_refresh_leaves_no_pause_here() {
    let stage = Stage::stale(OPTIONS).await;
    stage.origin.answers(Answer::Fails);
    stage.origin.get(&stage.caches[0]).await;
    sleep(SLOW / 2).await;
    // As stale as the one before.
    stage.stores[1].refresh(KEY, b"7", Some(STALE)).await.unwrap();
    stage.settle().await;
    stage.origin.answers(Answer::Value);
    sleep(SLOW).await;
    assert_eq!(stage.origin.get(&stage.caches[0]).await.0.value, 7);
    stage.settle().await;
    let (got, _) = stage.origin.get(&stage.caches[0]).await;
    assert_eq!((got.value, is_stale(&got)), (3, false));
}
