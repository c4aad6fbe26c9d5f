//! Computations that ask the cache, for the very key that they compute and for others.

use std::time::Duration;

use derp_kv_core::{Cache, Error};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};

use crate::common::{Process, process};
use crate::stage::{LOCK_TTL, OPTIONS, SLOW, STALE, Stage, TTL};

type Depths = Cache<Process, u32>;

/// Asks for `keys`, one inside of the computation of the other.
fn nested(cache: Depths, mut keys: Vec<&'static str>) -> BoxFuture<'static, Result<u32, Error>> {
    async move {
        let Some(key) = keys.pop() else { return Ok(0) };
        let inner = cache.clone();
        cache.get(key, move |_| async move { Ok(nested(inner, keys).await? + 1) }).await
    }
    .boxed()
}

fn nested_many(cache: Depths, depth: u32) -> BoxFuture<'static, Result<Vec<u32>, Error>> {
    async move {
        let inner = cache.clone();
        let compute = move |keys: Vec<&'static str>| {
            let inner = inner.clone();
            async move {
                let below = if depth == 0 { 0 } else { nested_many(inner, depth - 1).await?[0] };
                Ok(vec![below + 1; keys.len()])
            }
        };
        cache.get_many(&["a", "b"], compute).await
    }
    .boxed()
}

#[tokio::test(start_paused = true)]
async fn a_computation_asks_for_its_own_key() {
    for keys in [
        vec!["a", "a"],
        vec!["a", "a", "a"],
        vec!["a", "a", "a", "a"],
        vec!["a", "b", "a"],
        vec!["a", "b", "c", "a"],
        vec!["b", "a", "b", "a"],
    ] {
        let stage = Stage::new(OPTIONS);
        let began = Instant::now();
        let depth = u32::try_from(keys.len()).unwrap();
        let value = nested(stage.caches[0].clone(), keys.clone()).await.unwrap();
        assert_eq!((value, began.elapsed()), (depth, Duration::ZERO), "{keys:?}");
        assert_eq!(stage.caches[0].peek(keys[keys.len() - 1]).await.unwrap(), Some(depth));
        sleep(LOCK_TTL).await;
        assert!(derp_kv_core::KvStore::flights(&stage.stores[0]).unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_computation_of_many_keys_asks_for_them() {
    for depth in 1..4 {
        let stage = Stage::new(OPTIONS);
        let began = Instant::now();
        let values = nested_many(stage.caches[0].clone(), depth).await.unwrap();
        assert_eq!((values, began.elapsed()), (vec![depth + 1; 2], Duration::ZERO));
    }
}

/// The value is there, so that a refresh that asks for its own key gets that.
#[tokio::test(start_paused = true)]
async fn a_refresh_asks_for_its_own_key() {
    for passes in [TTL, Duration::ZERO] {
        let stage = Stage::new(OPTIONS);
        let cache = &stage.caches[0];
        nested(cache.clone(), vec!["a"]).await.unwrap();
        sleep(passes).await;
        let began = Instant::now();
        assert_eq!(nested(cache.clone(), vec!["a", "a"]).await.unwrap(), 1);
        stage.settle().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        let expected = if passes.is_zero() { 1 } else { 2 };
        assert_eq!(cache.peek("a").await.unwrap(), Some(expected), "one more than the stale value");
    }
}

/// As before, where the value ends before the refresh asks: it does not wait for its own lock.
#[tokio::test(start_paused = true)]
async fn a_refresh_asks_for_its_own_key_after_the_value_has_ended() {
    let stage = Stage::new(OPTIONS);
    let cache = &stage.caches[0];
    nested(cache.clone(), vec!["a"]).await.unwrap();
    sleep(TTL + STALE - SLOW / 2).await;
    let (began, inner) = (Instant::now(), cache.clone());
    let refresh = move |_| async move {
        sleep(SLOW).await;
        Ok::<_, Error>(nested(inner, vec!["a"]).await? + 5)
    };
    assert_eq!(cache.get("a", refresh).await.unwrap(), 1, "the stale value");
    stage.settle().await;
    assert_eq!(began.elapsed(), SLOW);
    assert_eq!(cache.peek("a").await.unwrap(), Some(6));
}

/// Two computations that wait for each other are two tasks: the cache cannot know. Each computes for
/// itself after `lock_ttl`.
#[tokio::test(start_paused = true)]
async fn two_that_ask_for_each_other_do_not_wait_for_ever() {
    for processes in [1, 2] {
        let data = derp_kv_memory::MemoryStore::new();
        let stores = [process(&data), process(&data)];
        let caches = [0, 1].map(|n| Depths::new(stores[n % processes].clone(), "", OPTIONS));
        let ask = |cache: &Depths, own: &'static str, other: &'static str| {
            let (cache, inner) = (cache.clone(), cache.clone());
            async move {
                let compute = move |_| async move {
                    sleep(SLOW).await;
                    nested(inner, vec![other]).await
                };
                cache.get(own, compute).await.unwrap()
            }
        };
        let began = Instant::now();
        let both = async { tokio::join!(ask(&caches[0], "a", "b"), ask(&caches[1], "b", "a")) };
        let both = timeout(LOCK_TTL * 4, both).await.expect("they wait for each other");
        assert_eq!(both, (1, 1), "{processes} processes, {:?}", began.elapsed());
    }
}
