//! `Cache` in front of origins that hang, callers that go away, and values that cannot be stored or read.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Owns, process};
use derp_kv_core::{
    Cache, Error, ErrorKind, Event, Fill, Flights, Freshness, GuardedGet, KvStore, KvStoreExt,
    Layer, Layered, Observer, Source, StaleCause,
};
use derp_kv_memory::MemoryStore;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::runtime::Builder;
use tokio::time::{Instant, advance, sleep, timeout};

const TTL: Duration = Duration::from_secs(60);
const LOCK_TTL: Duration = Duration::from_secs(2);
const OPTIONS: GuardedGet = GuardedGet::new(TTL).lock_ttl(LOCK_TTL);

/// What JSON cannot hold goes to its caller. The origin is well, so nobody cools down for it.
#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_stored_is_no_failure_of_the_origin() {
    let kv = MemoryStore::new();
    let cache = Cache::<_, f64>::new(kv.clone(), "n:", OPTIONS.stale(TTL));
    for _ in 0..3 {
        let value = cache.get("k", |_| async { Ok::<_, Error>(f64::NAN) }).await.unwrap();
        assert!(value.is_nan());
        assert_eq!(kv.mget(&[b"n:k", b"n:k:lock"]).await.unwrap(), [None, None]);
    }
    let error = cache.put("k", &f64::NAN).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// A value of an older format stays in the store while its successor is computed. Nobody who comes
/// meanwhile may take it for the result.
#[tokio::test(start_paused = true)]
async fn a_value_of_an_older_format_is_replaced_by_one_computation() {
    let data = MemoryStore::new();
    let undecodable = Undecodable::default();
    let caches = [1, 2].map(|_| {
        let process = Heard { flights: Flights::new(), undecodable: undecodable.clone() };
        Cache::<_, u32>::new(Layered::new(data.clone(), process), "n:", OPTIONS)
    });
    data.set(b"n:k", br#"{"old":1}"#, None).await.unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let calls = (0..40).map(|number: usize| {
        let (cache, runs) = (caches[number % 2].clone(), runs.clone());
        async move {
            sleep(Duration::from_millis(10) * number as u32).await;
            let work = |old: Option<u32>| async move {
                assert_eq!(old, None);
                runs.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_secs(1)).await;
                Ok::<_, Error>(7)
            };
            cache.get("k", work).await
        }
    });
    for value in join_all(calls).await {
        assert_eq!(value.unwrap(), 7);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(data.get(b"n:k").await.unwrap().unwrap(), "7");
    // The first caller of each process read it. Those who waited did not get it from anybody.
    assert_eq!(undecodable.0.load(Ordering::SeqCst), 2);
}

/// Counts the values that could not be decoded.
#[derive(Clone, Debug, Default)]
struct Undecodable(Arc<AtomicU32>);

impl Observer for Undecodable {
    fn event(&self, event: Event) {
        if let Event::Undecodable { .. } = event {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A process that is heard.
#[derive(Clone, Debug)]
struct Heard {
    flights: Flights,
    undecodable: Undecodable,
}

impl Layer for Heard {
    fn flights<'a>(&'a self, _: Option<&'a Flights>) -> Option<&'a Flights> {
        Some(&self.flights)
    }

    fn observer<'a>(&'a self, _: Option<&'a dyn Observer>) -> Option<&'a dyn Observer> {
        Some(&self.undecodable)
    }
}

/// A computation far above `lock_ttl` is kept as long as its caller waits, as with `guarded_get`.
#[tokio::test(start_paused = true)]
async fn what_a_caller_waits_for_is_kept_however_long_it_takes() {
    let kv = MemoryStore::new();
    let cache = Cache::<_, u32>::new(kv.clone(), "n:", OPTIONS);
    let slow = |_| async {
        sleep(50 * LOCK_TTL).await;
        Ok::<_, Error>(1)
    };
    assert_eq!(cache.get("k", slow).await.unwrap(), 1);
    assert_eq!(kv.get(b"n:k").await.unwrap().unwrap(), "1");
}

/// An origin that answers nobody, and callers that give up: the computations that nobody wants end, and
/// once the origin answers again, so does the cache.
#[tokio::test(start_paused = true)]
async fn computations_that_hang_end_when_nobody_wants_them() {
    let kv = MemoryStore::new();
    let cache = Cache::<_, u32>::new(kv.clone(), "n:", OPTIONS);
    let running = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..100 {
        let running = running.clone();
        let hangs = move |_| async move {
            let alive = Arc::new(());
            running.lock().unwrap().push(Arc::downgrade(&alive));
            std::future::pending::<()>().await;
            drop(alive);
            Ok::<u32, Error>(0)
        };
        assert!(timeout(LOCK_TTL, cache.get("k", hangs)).await.is_err());
    }
    let left = || running.lock().unwrap().iter().filter(|run| run.strong_count() > 0).count();
    // One a `lock_ttl`, each for at most twenty of them.
    assert!(left() <= 21, "{} computations of {} hang", left(), running.lock().unwrap().len());
    assert!(cache.drain(21 * LOCK_TTL).await);
    assert_eq!(left(), 0);
    let began = Instant::now();
    assert_eq!(cache.get("k", |_| async { Ok::<_, Error>(1) }).await.unwrap(), 1);
    assert_eq!((began.elapsed(), kv.flights().unwrap().len()), (Duration::ZERO, 0));
}

/// The same for a refresh: stale data is served, and the value is refreshed once the origin is back.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_hangs_pins_no_stale_value() {
    let kv = MemoryStore::new();
    let cache = Cache::<_, u32>::new(kv.clone(), "n:", OPTIONS.stale(100 * TTL));
    cache.put("k", &1).await.unwrap();
    advance(TTL).await;
    let hangs = |_| std::future::pending::<Result<u32, Error>>();
    assert_eq!(cache.get("k", hangs).await.unwrap(), 1);
    advance(Duration::from_secs(1)).await;
    let began = Instant::now();
    loop {
        let got = cache.get_detailed("k", |_| async { Ok::<_, Error>(2) }).await.unwrap();
        if got.value == 2 {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() <= 11 * LOCK_TTL, "{:?}", began.elapsed());
}

/// A process asks the store again soon, however long its cool-down: another one may have ended it.
#[tokio::test(start_paused = true)]
async fn a_cool_down_that_another_process_ended_is_over_everywhere() {
    let data = MemoryStore::new();
    let options = OPTIONS.stale(100 * TTL).backoff(50 * TTL);
    let caches = [1, 2].map(|_| Cache::<_, u32>::new(process(&data), "n:", options));
    let fails = |_| async { Err::<u32, _>(Error::new(ErrorKind::Backend, "down")) };
    caches[0].put("k", &1).await.unwrap();
    advance(TTL).await;
    assert_eq!(caches[0].get("k", fails).await.unwrap(), 1);
    assert!(caches[0].drain(TTL).await);
    let got = caches[0].get_detailed("k", fails).await.unwrap();
    assert!(matches!(got.freshness, Freshness::Stale { cause: StaleCause::Failed, .. }), "{got:?}");
    caches[1].put("k", &2).await.unwrap();
    advance(TTL).await;
    assert_eq!(caches[0].get("k", |_| async { Ok::<_, Error>(3) }).await.unwrap(), 2);
    assert!(caches[0].drain(TTL).await);
    let got = caches[1].get_detailed("k", fails).await.unwrap();
    assert_eq!((got.value, got.freshness, got.source), (3, Freshness::Fresh, Source::Store));
}

/// Values that are not to be stored are asked for once a `retry_delay`, not as fast as the origin answers.
#[tokio::test(start_paused = true)]
async fn a_refresh_whose_value_is_not_kept_is_not_begun_again_at_once() {
    let kv = MemoryStore::new();
    let options = OPTIONS.stale(100 * TTL).backoff(Duration::ZERO);
    kv.set(b"k", b"old", Some(50 * TTL)).await.unwrap();
    for fails in [true, false] {
        let runs = AtomicU32::new(0);
        for _ in 0..200 {
            let work = || async {
                runs.fetch_add(1, Ordering::SeqCst);
                if fails {
                    Err(Error::new(ErrorKind::Backend, "down"))
                } else {
                    Ok(Fill::unstored("new"))
                }
            };
            kv.guarded_get("k", &options, work).await.unwrap();
            sleep(Duration::from_millis(5)).await;
        }
        // A second of calls, and 50 ms between two tries.
        assert!((10..=21).contains(&runs.load(Ordering::SeqCst)), "{runs:?}");
    }
}

/// A runtime that nobody drives any more keeps no lock, though the store's own runtime could renew it
/// for ever, and keeps nobody from refreshing.
#[test]
fn a_runtime_that_stands_still_pins_nothing() {
    let own = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let kv = Layered::new(MemoryStore::new(), Owns(own.handle().clone()));
    let options = GuardedGet::new(Duration::from_millis(1))
        .stale(100 * TTL)
        .lock_ttl(Duration::from_millis(50));
    let cache = Cache::<_, u32>::new(kv.clone(), "n:", options);
    let still = Builder::new_current_thread().enable_time().build().unwrap();
    let hangs = |_| std::future::pending::<Result<u32, Error>>();
    still.block_on(async {
        assert!(timeout(Duration::from_millis(5), cache.get("cold", hangs)).await.is_err());
        cache.put("stale", &1).await.unwrap();
        sleep(Duration::from_millis(5)).await;
        assert_eq!(cache.get("stale", hangs).await.unwrap(), 1);
        // It takes the lock, and then nobody drives this runtime any more.
        while !kv.exists(b"n:stale:lock").await.unwrap() {
            tokio::task::yield_now().await;
        }
    });
    let driven = Builder::new_current_thread().enable_time().build().unwrap();
    driven.block_on(async {
        for key in ["n:cold:lock", "n:stale:lock"] {
            let gone = async {
                while let Some(lock) = kv.get(key.as_bytes()).await.unwrap() {
                    kv.wait_for_change(key.as_bytes(), Some(&lock), LOCK_TTL).await;
                }
            };
            timeout(TTL, gone).await.expect("it is renewed for a second and a little");
        }
        let refreshed = async {
            while cache.get("stale", |_| async { Ok::<_, Error>(2) }).await.unwrap() != 2 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(TTL, refreshed).await.expect("the flight that stands still is over");
    });
}

/// An absence that is not kept is the truth all the same: the value that was there is removed.
#[tokio::test(start_paused = true)]
async fn an_absence_that_is_not_kept_ends_the_value_that_was_there() {
    let kv = MemoryStore::new();
    let cache = Cache::<_, Option<u32>>::new(kv.clone(), "n:", OPTIONS.stale(100 * TTL))
        .absent_ttl(Duration::ZERO);
    cache.put("k", &Some(1)).await.unwrap();
    advance(TTL).await;
    let gone = |_| async { Ok::<Option<u32>, Error>(None) };
    assert_eq!(cache.get("k", gone).await.unwrap(), Some(1));
    assert!(cache.drain(TTL).await);
    assert_eq!(kv.mget(&[b"n:k", b"n:k:lock"]).await.unwrap(), [None, None]);
    assert_eq!(cache.get("k", gone).await.unwrap(), None);
}

/// Of a failed refresh the whole process knows, until its cool-down has ended.
#[tokio::test(start_paused = true)]
async fn a_process_says_that_its_refresh_failed_for_as_long_as_it_cools_down() {
    let kv = MemoryStore::new();
    let cache = Cache::<_, u32>::new(kv, "n:", OPTIONS.stale(100 * TTL));
    let fails = |_| async { Err::<u32, _>(Error::new(ErrorKind::Backend, "down")) };
    cache.put("k", &1).await.unwrap();
    advance(TTL).await;
    cache.get("k", fails).await.unwrap();
    assert!(cache.drain(TTL).await);
    for _ in 0..99 {
        let got = cache.get_detailed("k", fails).await.unwrap();
        let failed = matches!(got.freshness, Freshness::Stale { cause: StaleCause::Failed, .. });
        assert!(failed, "{got:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// A caller may come to poll the value that another one found for it when that value is gone.
#[tokio::test(start_paused = true)]
async fn a_value_that_ends_while_it_is_handed_over_is_not_served() {
    let kv = MemoryStore::new();
    let options = OPTIONS.stale(TTL);
    kv.set_nx(b"k:lock", b"somebody else's", Some(LOCK_TTL)).await.unwrap();
    let watcher = tokio::spawn({
        let kv = kv.clone();
        async move { kv.guarded_get_detailed("k", &options, || async { Ok::<_, Error>("a") }).await }
    });
    tokio::task::yield_now().await;
    let waits = kv.guarded_get_detailed("k", &options, || async { Ok::<_, Error>("b") });
    let mut waits = std::pin::pin!(waits);
    assert!((&mut waits).now_or_never().is_none());
    kv.set(b"k", b"old", Some(Duration::from_millis(5))).await.unwrap();
    assert_eq!(watcher.await.unwrap().unwrap().value, "old");
    advance(Duration::from_millis(10)).await;
    let got = waits.await.unwrap();
    assert_eq!((&got.value[..], got.freshness), (&b"b"[..], Freshness::Fresh));
}
