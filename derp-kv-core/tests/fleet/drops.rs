//! Callers that go away at every point, and caches that do.

use std::time::Duration;

use derp_kv_core::{Cache, GuardedGet, KvStore, KvStoreExt};
use derp_kv_memory::MemoryStore;
use tokio::time::{Instant, sleep};

use crate::common::{drop_after, process};
use crate::stage::{
    Answer, BACKOFF, KEY, LOCK_TTL, OPTIONS, Origin, RETRY_DELAY, SLOW, STALE, Stage, TTL,
};

/// With a pause after failures that a test can wait for.
const BACKED_OFF: GuardedGet = GuardedGet::new(TTL).backoff(BACKOFF);

/// Runs `scenario` with its call dropped after each number of polls, until it is not dropped any more.
async fn at_every_point(scenario: impl AsyncFn(u32) -> bool) {
    let mut points = 0;
    while !scenario(points).await {
        points += 1;
        assert!(points < 500, "the call never ends");
    }
    assert!(points >= 2, "{points} points: the call was not dropped half-way");
}

impl Stage {
    /// Polls until the call waits for the origin, and then lets the origin answer.
    async fn leave<T>(&self, polls: u32, call: impl Future<Output = T>) -> bool {
        let call = drop_after(polls, call);
        // Each poll comes of a timer or of the store, which yields.
        call.await
    }

    /// After a dropped call: nothing stays locked beyond `lock_ttl`, the next caller in each process is
    /// answered, and no flight is left.
    async fn goes_on(&self, what: &str) {
        self.origin.answers(Answer::Value);
        let dropped = Instant::now();
        for cache in &self.caches {
            let call = self.origin.try_get(cache);
            let answered = tokio::time::timeout(LOCK_TTL + SLOW * 2, call).await;
            assert!(answered.is_ok(), "{what}: a caller waits for {:?}", dropped.elapsed());
        }
        self.settle().await;
        sleep(LOCK_TTL).await;
        if let Some(lock) = self.lock().await {
            assert_eq!(lock.first(), Some(&b'!'), "{what}: a lock is left");
            sleep(BACKOFF).await;
        }
        assert_eq!(self.lock().await, None, "{what}");
        let (got, _) = self.origin.get(&self.caches[1]).await;
        self.settle().await;
        let (again, _) = self.origin.get(&self.caches[0]).await;
        assert!(again.value >= got.value, "{what}");
        sleep(BACKOFF + RETRY_DELAY).await;
        for store in &self.stores {
            assert!(store.flights().unwrap().is_empty(), "{what}: a flight is left");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_borrowing_refresh_is_dropped() {
    for answer in [Answer::Value, Answer::Fails] {
        at_every_point(async |polls| {
            let stage = Stage::stale(OPTIONS).await;
            stage.origin.answers(answer);
            let call = stage.origin.try_guarded(&stage.stores[0], &OPTIONS);
            let ended = stage.leave(polls, call).await;
            stage.goes_on(&format!("{answer:?} after {polls} polls")).await;
            ended
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_borrowing_miss_with_a_backoff_is_dropped() {
    for answer in [Answer::Value, Answer::Fails] {
        at_every_point(async |polls| {
            let stage = Stage::new(BACKED_OFF);
            stage.origin.answers(answer);
            let call = stage.origin.try_guarded(&stage.stores[0], &BACKED_OFF);
            let ended = stage.leave(polls, call).await;
            let what = format!("{answer:?} after {polls} polls");
            // A cool-down is no lock that somebody forgot.
            sleep(LOCK_TTL).await;
            let lock = stage.lock().await;
            assert!(lock.is_none_or(|lock| lock[0] == b'!'), "{what}: a lock is left");
            sleep(BACKOFF).await;
            stage.goes_on(&what).await;
            ended
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_of_a_cache_is_dropped_and_what_it_began_is_kept() {
    for stale in [false, true] {
        at_every_point(async |polls| {
            let stage = if stale { Stage::stale(OPTIONS).await } else { Stage::new(OPTIONS) };
            let before = stage.origin.begun();
            let call = stage.origin.try_get(&stage.caches[0]);
            let ended = stage.leave(polls, call).await;
            stage.settle().await;
            let begun = stage.origin.begun();
            let value = stage.caches[1].peek(KEY).await.unwrap();
            let expected = (begun > 0).then_some(begun);
            assert_eq!(value, expected, "after {polls} polls, {before} begun before");
            stage.goes_on(&format!("stale {stale}, after {polls} polls")).await;
            ended
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_of_many_keys_is_dropped_and_what_it_began_is_kept() {
    at_every_point(async |polls| {
        let stage = Stage::new(OPTIONS);
        let origin = stage.origin.clone();
        let compute = move |keys: Vec<&'static str>| {
            let origin = origin.clone();
            async move { origin.ask().await.map(|number| vec![number; keys.len()]) }
        };
        let keys = ["k", "a", "b"];
        let ended = stage.leave(polls, stage.caches[0].get_many(&keys, compute.clone())).await;
        stage.settle().await;
        let begun = stage.origin.begun();
        for key in keys {
            let value = stage.caches[1].peek(key).await.unwrap();
            assert_eq!(value, (begun > 0).then_some(begun), "{key} after {polls} polls");
            let lock = stage.data.get(format!("{key}:lock").as_bytes()).await.unwrap();
            assert_eq!(lock, None, "after {polls} polls");
        }
        let values = stage.caches[1].get_many(&keys, compute).await.unwrap();
        assert_eq!(values, [1; 3]);
        stage.goes_on(&format!("after {polls} polls")).await;
        ended
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_write_is_dropped() {
    at_every_point(async |polls| {
        let stage = Stage::stale(OPTIONS).await;
        let ended = stage.leave(polls, stage.caches[0].put(KEY, &7)).await;
        let value = stage.caches[1].peek(KEY).await.unwrap();
        assert_eq!(value, Some(if ended { 7 } else { value.unwrap_or_default() }));
        assert!(matches!(value, Some(1 | 7)), "{value:?}");
        stage.goes_on(&format!("after {polls} polls")).await;
        ended
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_of_a_cache_ends_its_refresh_and_frees_the_lock() {
    let stage = Stage::stale(OPTIONS).await;
    stage.origin.answers(Answer::Hangs);
    let cache = Cache::<_, u32>::new(process(&stage.data), "", OPTIONS);
    stage.origin.get(&cache).await;
    sleep(SLOW).await;
    let clone = cache.clone();
    drop(cache);
    sleep(RETRY_DELAY).await;
    assert!(stage.lock().await.is_some(), "a clone is left");
    drop(clone);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(stage.lock().await, None);
    stage.origin.answers(Answer::Value);
    stage.origin.get(&stage.caches[1]).await;
    stage.settle().await;
    assert_eq!(stage.origin.get(&stage.caches[1]).await.0.value, 3);
}

/// Whoever waits for a computation of another cache's handle takes over when that goes away.
#[tokio::test(start_paused = true)]
async fn a_follower_takes_over_from_a_cache_that_is_dropped() {
    let data = MemoryStore::new();
    let (store, origin) = (process(&data), Origin::new());
    let [leads, follows] = [0, 1].map(|_| Cache::<_, u32>::new(store.clone(), "", OPTIONS));
    let led = tokio::spawn({
        let origin = origin.clone();
        async move { origin.try_get(&leads).await }
    });
    sleep(SLOW / 2).await;
    let began = Instant::now();
    let follower = origin.get(&follows);
    let dropped = async {
        sleep(SLOW / 4).await;
        led.abort();
        assert!(led.await.unwrap_err().is_cancelled());
    };
    let ((got, _), ()) = tokio::join!(follower, dropped);
    assert_eq!((got.value, began.elapsed()), (2, SLOW / 4 + SLOW));
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_what_runs_and_no_longer_than_it_may() {
    let stage = Stage::stale(OPTIONS).await;
    let cache = &stage.caches[0];
    let began = Instant::now();
    assert!(cache.drain(SLOW).await);
    assert_eq!(began.elapsed(), Duration::ZERO, "nothing runs");
    stage.origin.get(cache).await;
    assert!(!cache.drain(SLOW / 2).await);
    assert_eq!(began.elapsed(), SLOW / 2);
    assert!(cache.drain(SLOW).await);
    assert_eq!(began.elapsed(), SLOW);
    assert_eq!(stage.left().await, Some(TTL + STALE), "what was begun is kept");
    // A panic and an abort end it as well.
    sleep(TTL).await;
    stage.origin.answers(Answer::Panics);
    stage.origin.get(cache).await;
    assert!(cache.drain(SLOW * 2).await);
}

/// A computation that an invalidation has outdated has no lock to leave to the next caller, which waits
/// for the process that has taken it.
#[tokio::test(start_paused = true)]
async fn a_lock_that_an_invalidation_has_taken_is_left_to_nobody() {
    let stage = Stage::new(OPTIONS);
    let [here, elsewhere] = &stage.stores;
    let leader = tokio::time::timeout(SLOW / 2, stage.origin.try_guarded(here, &OPTIONS));
    let follower = async {
        sleep(SLOW / 10).await;
        stage.origin.try_guarded(here, &OPTIONS).await.unwrap().0
    };
    let other = async {
        sleep(SLOW / 5).await;
        assert!(!here.invalidate(KEY).await.unwrap(), "it is not there yet");
        stage.origin.try_guarded(elsewhere, &OPTIONS).await.unwrap().0
    };
    let (leader, follower, other) = tokio::join!(leader, follower, other);
    assert!(leader.is_err(), "it goes away");
    assert_eq!((follower, other, stage.origin.begun()), (2, 2, 2));
    assert_eq!(stage.data.get(KEY).await.unwrap().as_deref(), Some(&b"2"[..]));
}
