//! `Cache`, and stale data, on the in-memory store, in virtual time.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::process;
use derp_kv_core::{
    Cache, Error, ErrorKind, Freshness, GuardedGet, KvStore, KvStoreExt, Source, StaleCause,
};
use derp_kv_memory::MemoryStore;
use tokio::time::{Instant, advance, sleep};

const TTL: Duration = Duration::from_secs(60);
const STALE: Duration = Duration::from_secs(600);
const SLOW: Duration = Duration::from_millis(500);
const OPTIONS: GuardedGet = GuardedGet::new(TTL).stale(STALE);

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_refresh() {
    let data = MemoryStore::new();
    let caches = [1, 2].map(|_| Cache::<_, u32>::new(process(&data), "n:", OPTIONS));
    let runs = Arc::new(AtomicU32::new(0));
    let get = async |cache: &Cache<_, u32>| {
        let runs = runs.clone();
        let began = Instant::now();
        let got = cache
            .get_detailed("k", move |_| async move {
                sleep(SLOW).await;
                Ok::<_, Error>(runs.fetch_add(1, Ordering::SeqCst))
            })
            .await
            .unwrap();
        (got, began.elapsed())
    };
    let (got, took) = get(&caches[0]).await;
    assert_eq!((got.value, got.source, took), (0, Source::Computed, SLOW));
    advance(TTL).await;
    for cache in caches.iter().cycle().take(10) {
        let (got, took) = get(cache).await;
        let Freshness::Stale { cause, .. } = got.freshness else { panic!("{got:?}") };
        assert_eq!((got.value, took, cause), (0, Duration::ZERO, StaleCause::Refreshing));
    }
    for cache in &caches {
        assert!(cache.drain(STALE).await);
        let (got, took) = get(cache).await;
        assert_eq!((got.value, got.freshness, took), (1, Freshness::Fresh, Duration::ZERO));
    }
    assert_eq!(data.ttl(b"n:k").await.unwrap().unwrap().remaining(), Some(TTL + STALE));
    assert!(!data.exists(b"n:k:lock").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_is_tried_once_a_backoff_by_the_whole_fleet() {
    let data = MemoryStore::new();
    let stores = [process(&data), process(&data)];
    let options = OPTIONS.backoff(Duration::from_secs(5));
    data.set(b"k", b"old", Some(STALE)).await.unwrap();
    let runs = AtomicU32::new(0);
    let began = Instant::now();
    for n in 0..200 {
        let got = stores[n % 2]
            .guarded_get_detailed("k", &options, || async {
                runs.fetch_add(1, Ordering::SeqCst);
                sleep(SLOW).await;
                Err::<&str, _>(Error::new(ErrorKind::Backend, "down"))
            })
            .await
            .unwrap();
        assert_eq!(got.value, "old");
        assert!(matches!(got.freshness, Freshness::Stale { .. }), "{got:?}");
        sleep(Duration::from_millis(100)).await;
    }
    // Each takes its half second and rests for five, and then somebody has to come.
    let rounds = began.elapsed().as_millis() / 5_600 + 1;
    assert_eq!(u128::from(runs.load(Ordering::SeqCst)), rounds);
    let left = data.ttl(b"k").await.unwrap().unwrap().remaining().unwrap();
    assert_eq!(left, STALE - began.elapsed(), "no failure moves the end of the value");
}

#[tokio::test(start_paused = true)]
async fn without_stale_data_callers_hear_when_it_is_tried_again() {
    let data = MemoryStore::new();
    let stores = [process(&data), process(&data)];
    let options = GuardedGet::new(TTL).backoff(Duration::from_secs(5));
    let fail = || async { Err::<&str, _>(Error::new(ErrorKind::Backend, "down")) };
    let own = stores[0].guarded_get("k", &options, fail).await.unwrap_err();
    assert_eq!(own.kind(), ErrorKind::Backend);
    for store in &stores {
        let error = store.guarded_get("k", &options, fail).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failing);
        let retry_after = error.retry_after().unwrap();
        assert!(retry_after <= Duration::from_millis(5_001), "{retry_after:?}");
    }
    let error = stores[1].guarded_get("k", &options, fail).await.unwrap_err();
    advance(error.retry_after().unwrap()).await;
    let got = stores[1].guarded_get("k", &options, || async { Ok::<_, Error>("new") }).await;
    assert_eq!(got.unwrap(), "new");
}
