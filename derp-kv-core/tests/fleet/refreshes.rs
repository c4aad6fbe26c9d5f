//! Refreshing behind the callers' backs: what has gone wrong in other caches, each as a test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use derp_kv_core::{Cache, Error, GuardedGet, KvStore, KvStoreExt, Source, StaleCause};
use tokio::time::{Instant, advance, sleep};

use crate::common::process;
use crate::stage::{
    Answer, KEY, LOCK, LOCK_TTL, OPTIONS, RETRY_DELAY, SLOW, STALE, Stage, TTL, cause, is_stale,
};

/// The second caller of a stale value waited for the lock of the first (Julien-R44/bentocache#103).
#[tokio::test(start_paused = true)]
async fn the_second_caller_of_a_stale_value_waits_for_nothing() {
    let stage = Stage::stale(OPTIONS).await;
    let began = Instant::now();
    let first = stage.origin.try_guarded(&stage.stores[0], &OPTIONS);
    let others = async {
        sleep(SLOW / 5).await;
        for store in &stage.stores {
            let began = Instant::now();
            let (value, _) = stage.origin.try_guarded(store, &OPTIONS).await.unwrap();
            assert_eq!((value, began.elapsed()), (1, Duration::ZERO));
        }
        for cache in &stage.caches {
            let (got, took) = stage.origin.get(cache).await;
            assert_eq!((got.value, took), (1, Duration::ZERO));
        }
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!((first.unwrap().0, began.elapsed()), (2, SLOW), "with a borrowing closure it waits");
    assert_eq!(stage.origin.begun(), 2);
}

/// The stale value was not handed to the computation (bentocache#115).
#[tokio::test(start_paused = true)]
async fn the_computation_gets_the_value_that_it_replaces() {
    let stage = Stage::new(OPTIONS.early(0.5));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let get = async |next: u32| {
        let seen = seen.clone();
        let cache = &stage.caches[0];
        let got = cache.get(KEY, move |replaced| async move {
            seen.lock().unwrap().push(replaced);
            Ok::<_, Error>(next)
        });
        got.await.unwrap();
        stage.settle().await;
    };
    get(1).await;
    advance(TTL * 3 / 4).await;
    get(2).await;
    advance(TTL).await;
    get(3).await;
    advance(TTL + STALE).await;
    get(4).await;
    assert_eq!(*seen.lock().unwrap(), [None, Some(1), Some(2), None]);
}

/// The caller that began the refresh waited for it (nodejs/undici#4471).
#[tokio::test(start_paused = true)]
async fn the_caller_that_begins_a_refresh_waits_for_nothing() {
    for options in [OPTIONS, OPTIONS.early(0.5)] {
        let stage = Stage::stale(options).await;
        stage.origin.answers(Answer::Hangs);
        let (got, took) = stage.origin.get(&stage.caches[0]).await;
        assert_eq!((got.value, took), (1, Duration::ZERO));
        assert_eq!(cause(&got), StaleCause::Refreshing);
    }
}

/// A refresh came back and changed nothing (commitpulse#3763, C-Address#391). It replaces the value, and
/// its TTL begins anew.
#[tokio::test(start_paused = true)]
async fn a_refresh_replaces_the_value_and_its_age() {
    let stage = Stage::stale(OPTIONS).await;
    for round in 2..6 {
        stage.origin.get(&stage.caches[0]).await;
        stage.settle().await;
        assert_eq!(stage.left().await, Some(TTL + STALE));
        for cache in &stage.caches {
            let (got, took) = stage.origin.get(cache).await;
            assert_eq!((got.value, is_stale(&got), took), (round, false, Duration::ZERO));
        }
        assert_eq!(stage.origin.begun(), round);
        advance(TTL).await;
    }
}

/// A lock that a dead process had left kept the value stale for ever (agi-cli pull request 2193). It
/// delays the refresh by what is left of it.
#[tokio::test(start_paused = true)]
async fn a_lock_of_the_dead_delays_a_refresh_by_its_ttl() {
    let stage = Stage::stale(OPTIONS).await;
    assert!(stage.data.set_nx(LOCK, b"of the dead", Some(LOCK_TTL)).await.unwrap());
    let died = Instant::now();
    while stage.origin.begun() == 1 {
        assert!(died.elapsed() <= LOCK_TTL + RETRY_DELAY * 2, "nobody refreshes");
        let (got, took) = stage.origin.get(&stage.caches[0]).await;
        assert_eq!((got.value, took), (1, Duration::ZERO));
        sleep(RETRY_DELAY / 5).await;
    }
    assert!(died.elapsed() >= LOCK_TTL, "{:?}", died.elapsed());
    stage.settle().await;
    assert_eq!(stage.origin.get(&stage.caches[1]).await.0.value, 2);
}

/// A refresh that panicked left its key pinned to the stale value for ever (jaemk/cached 4.1).
#[tokio::test(start_paused = true)]
async fn a_refresh_that_panics_pins_no_value() {
    let stage = Stage::stale(OPTIONS).await;
    stage.origin.answers(Answer::Panics);
    assert_eq!(stage.origin.get(&stage.caches[0]).await.0.value, 1);
    stage.settle().await;
    assert_eq!((stage.lock().await, stage.origin.begun()), (None, 2));
    // A computation that panics each time is not begun back to back.
    let (got, _) = stage.origin.get(&stage.caches[0]).await;
    assert_eq!((got.value, cause(&got)), (1, StaleCause::Failed));
    stage.settle().await;
    assert_eq!(stage.origin.begun(), 2);
    sleep(RETRY_DELAY).await;
    stage.origin.answers(Answer::Value);
    assert_eq!(stage.origin.get(&stage.caches[0]).await.0.value, 1);
    stage.settle().await;
    let (got, _) = stage.origin.get(&stage.caches[1]).await;
    assert_eq!((got.value, is_stale(&got)), (3, false));
}

/// The TTL counted from before the computation (jaemk/cached 4.1), so that a slow one stored values that
/// were stale at once. It counts from when the value is stored.
#[tokio::test(start_paused = true)]
async fn a_ttl_begins_when_the_value_is_stored() {
    let stage = Stage::new(OPTIONS.lock_ttl(TTL));
    stage.origin.takes(TTL * 2);
    stage.origin.get(&stage.caches[0]).await;
    assert_eq!(stage.left().await, Some(TTL + STALE));
    advance(TTL - Duration::from_millis(1)).await;
    let (got, took) = stage.origin.get(&stage.caches[0]).await;
    assert_eq!((got.value, is_stale(&got), took), (1, false, Duration::ZERO));
}

/// Stale data was served and, by default, never refreshed (softprops/hitbox). With `stale` alone it is.
#[tokio::test(start_paused = true)]
async fn stale_data_is_refreshed_without_another_option() {
    let stage = Stage::stale(GuardedGet::new(TTL).stale(STALE)).await;
    stage.origin.get(&stage.caches[0]).await;
    stage.settle().await;
    assert_eq!(stage.origin.begun(), 2);
}

/// Each process refreshed for itself (dotnet/extensions#6759), or nobody did before the end
/// (dotnet/aspnetcore#54647). One of all processes does, early or late.
#[tokio::test(start_paused = true)]
async fn one_of_many_processes_refreshes() {
    for (options, passes) in [(OPTIONS, TTL), (OPTIONS.early(0.5), TTL * 2 / 3)] {
        let stage = Stage::new(options);
        stage.origin.get(&stage.caches[0]).await;
        advance(passes).await;
        let caches: Vec<_> =
            (0..20).map(|_| Cache::<_, u32>::new(process(&stage.data), "", options)).collect();
        let calls = caches.iter().flat_map(|cache| (0..10).map(|_| stage.origin.get(cache)));
        for (got, took) in futures_util::future::join_all(calls).await {
            assert_eq!((got.value, took), (1, Duration::ZERO));
        }
        sleep(SLOW * 2).await;
        assert_eq!(stage.origin.begun(), 2);
        for cache in &caches {
            assert_eq!(stage.origin.get(cache).await.0.value, 2);
        }
    }
}

/// The lock of a refresh that took longer than it ended, and a second one began (cachekit 0.13). It is
/// renewed.
#[tokio::test(start_paused = true)]
async fn a_refresh_longer_than_the_lock_is_not_repeated() {
    let stage = Stage::stale(OPTIONS).await;
    stage.origin.takes(LOCK_TTL * 5);
    let began = Instant::now();
    while began.elapsed() < LOCK_TTL * 5 {
        for cache in &stage.caches {
            assert_eq!(stage.origin.get(cache).await.0.value, 1);
        }
        sleep(LOCK_TTL / 7).await;
    }
    stage.settle().await;
    assert_eq!(stage.origin.begun(), 2);
    assert_eq!(stage.origin.get(&stage.caches[1]).await.0.value, 2);
}

/// A deletion during a refresh was undone by it (cachekit's `SwrToken`). An invalidation wins, here and
/// elsewhere.
#[tokio::test(start_paused = true)]
async fn an_invalidation_during_a_refresh_wins() {
    for invalidator in [0, 1] {
        let stage = Stage::stale(OPTIONS).await;
        stage.origin.get(&stage.caches[0]).await;
        sleep(SLOW / 2).await;
        assert!(stage.caches[invalidator].invalidate(KEY).await.unwrap());
        stage.settle().await;
        assert_eq!(stage.data.get(KEY).await.unwrap(), None);
        let (got, took) = stage.origin.get(&stage.caches[0]).await;
        assert_eq!((got.value, got.source, took), (3, Source::Computed, SLOW));
    }
}

/// A refresh that hangs is given up after ten times `lock_ttl`, by its process and for all others.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_hangs_is_done_by_another_caller() {
    for successor in [0, 1] {
        let stage = Stage::stale(OPTIONS).await;
        stage.origin.answers(Answer::Hangs);
        stage.origin.get(&stage.caches[0]).await;
        let began = Instant::now();
        sleep(SLOW).await;
        stage.origin.answers(Answer::Value);
        while stage.origin.begun() == 2 {
            assert!(began.elapsed() <= LOCK_TTL * 10 + RETRY_DELAY * 2, "nobody refreshes");
            let (got, took) = stage.origin.get(&stage.caches[successor]).await;
            assert_eq!((got.value, took), (1, Duration::ZERO));
            sleep(RETRY_DELAY).await;
        }
        assert!(began.elapsed() >= LOCK_TTL * 10, "{:?}", began.elapsed());
        sleep(SLOW).await;
        assert_eq!(
            (stage.origin.get(&stage.caches[0]).await.0.value, stage.origin.begun()),
            (3, 3)
        );
        assert_eq!(stage.lock().await, None);
    }
}

/// One caller of a process looks at the store for all that wait. What it finds may be stale, for them as
/// for the one who looked.
#[tokio::test(start_paused = true)]
async fn a_stale_value_that_one_finds_for_all_is_stale_for_all() {
    let stage = Stage::new(OPTIONS);
    stage.origin.answers(Answer::Hangs);
    let cache = &stage.caches[0];
    let leader = tokio::time::timeout(SLOW, stage.origin.try_get(cache));
    let others = futures_util::future::join_all((0..10).map(|_| stage.origin.get(cache)));
    let stored = async {
        sleep(SLOW).await;
        stage.stores[1].refresh(KEY, b"7", Some(STALE)).await.unwrap();
    };
    let (leader, others, ()) = tokio::join!(leader, others, stored);
    assert!(leader.is_err(), "it hangs");
    for (got, _) in others {
        assert_eq!((got.value, is_stale(&got)), (7, true), "{got:?}");
    }
}
