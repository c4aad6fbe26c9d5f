//! Stale data, refreshes and cool-downs of several processes on one server.
//!
//! The test binary starts itself again as a worker: [`worker`] is a test that does nothing unless the
//! environment says what to do. `DERP_KV_INVALIDATIONS` says how many invalidations race with a refresh
//! (1,000).

mod common;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::stage::{ROLE, Stage, setting, stores_of_worker, succeed, unix_millis, wait_until};
use common::{config, connect, ends};
use derp_kv_core::{
    Cache, Error, ErrorKind, Freshness, GuardedGet, KvStore, KvStoreExt, OnStoreError,
};
use derp_kv_valkey::ValkeyStore;
use derp_kv_valkey::test_server::{Reply, Server};
use futures_util::future::join_all;
use tokio::process::Child;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

const INVALIDATIONS: &str = "DERP_KV_INVALIDATIONS";

/// Only guards against a hang.
const HANG: Duration = Duration::from_secs(60);
const LOCK_TTL: Duration = Duration::from_secs(2);
const STALE: Duration = Duration::from_secs(600);
const OPTIONS: GuardedGet =
    GuardedGet::new(Duration::from_secs(60)).stale(STALE).lock_ttl(LOCK_TTL);
const KEY: &str = "k";
const LOCK: &str = "k:lock";
/// How many refreshes began, and how many workers have had an answer.
const BEGAN: &[u8] = b"began";
const READY: &[u8] = b"ready";

/// Two servers, the one under test with the value 0, which is stale.
async fn open() -> Stage {
    let stage = Stage::open().await;
    stage.kv.set(KEY.as_bytes(), b"0", Some(STALE)).await.unwrap();
    stage
}

/// A process that asks until it gets a new value. If it `hangs`, a refresh of its own never ends.
fn spawn(stage: &Stage, role: &str) -> Child {
    stage.worker(role).spawn().expect("start a worker")
}

async fn count(stage: &Stage, key: &[u8]) -> i64 {
    stage.control.incr(key, 0, None).await.unwrap().value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker() {
    let Ok(role) = env::var(ROLE) else { return };
    let (kv, control) = stores_of_worker().await;
    let cache = Cache::<_, i64>::new(kv, "", OPTIONS);
    let mut ready = false;
    loop {
        let (control, hangs) = (control.clone(), role == "hangs");
        let beginning = control.clone();
        let got = cache.get_detailed(KEY, move |_stale| async move {
            let number = beginning.incr(BEGAN, 1, None).await?.value;
            if hangs {
                std::future::pending::<()>().await;
            }
            sleep(Duration::from_millis(300)).await;
            Ok::<_, Error>(number)
        });
        let got = got.await.unwrap();
        if !std::mem::replace(&mut ready, true) {
            control.incr(READY, 1, None).await.unwrap();
        }
        if got.value != 0 {
            assert_eq!(got.freshness, Freshness::Fresh);
            // What it has begun itself, it keeps.
            assert!(cache.drain(HANG).await);
            return;
        }
        assert!(matches!(got.freshness, Freshness::Stale { .. }), "{got:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A process that is killed while it refreshes is succeeded by exactly one other, when its lock expires.
#[tokio::test]
async fn a_killed_refresher_is_succeeded_by_exactly_one() {
    let stage = open().await;
    let mut refresher = spawn(&stage, "hangs");
    wait_until(&stage.control, BEGAN, 1).await;
    let others: Vec<_> = (0..2).map(|_| spawn(&stage, "refreshes")).collect();
    wait_until(&stage.control, READY, 3).await;
    // Longer than an unrenewed lock lasts: all of them are still answered, and none refreshes.
    sleep(LOCK_TTL + LOCK_TTL / 4).await;
    assert_eq!(count(&stage, BEGAN).await, 1, "the lock was not renewed");
    refresher.kill().await.unwrap();
    let expires = stage.expires(LOCK.as_bytes()).await;
    wait_until(&stage.control, BEGAN, 2).await;
    let now = unix_millis();
    assert!(now >= expires, "{} ms before the lock of the dead expired", expires - now);
    assert!(now - expires < 500, "{} ms after the lock of the dead expired", now - expires);
    succeed(others).await;
    assert_eq!(count(&stage, BEGAN).await, 2, "one successor");
    assert_eq!(stage.kv.get(KEY.as_bytes()).await.unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(stage.kv.get(LOCK.as_bytes()).await.unwrap(), None);
}

/// Whenever it comes during a refresh, and from whichever process, an invalidation wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_during_a_refresh_wins() {
    let rounds = setting(INVALIDATIONS).unwrap_or(1_000);
    let server = Server::start().await.unwrap();
    let stores = [connect(server.address()).await, connect(server.address()).await];
    let cache = Cache::<_, u32>::new(stores[0].clone(), "", OPTIONS);
    let came_back = AtomicU32::new(0);
    let one = async |round: u16| {
        let key = format!("key {round}");
        stores[0].set(key.as_bytes(), b"0", Some(STALE)).await.unwrap();
        let (begun, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let got = cache.get(&key, {
            let (begun, end) = (begun.clone(), end.clone());
            move |_| async move {
                begun.notify_one();
                end.notified().await;
                Ok::<_, Error>(1)
            }
        });
        assert_eq!(got.await.unwrap(), 0);
        begun.notified().await;
        // Some come long before the value is stored, some while it is, from here or elsewhere.
        let invalidates = async {
            for _ in 0..round % 7 {
                tokio::task::yield_now().await;
            }
            stores[usize::from(round) % 2].invalidate(&key).await.unwrap();
        };
        let ends_refresh = async {
            for _ in 0..round % 5 {
                tokio::task::yield_now().await;
            }
            end.notify_one();
        };
        tokio::join!(invalidates, ends_refresh);
        key
    };
    for first in (0..rounds).step_by(50) {
        let keys = join_all((first..rounds.min(first + 50)).map(one)).await;
        assert!(cache.drain(HANG).await);
        for key in keys {
            if stores[1].exists(key.as_bytes()).await.unwrap() {
                came_back.fetch_add(1, Ordering::SeqCst);
            }
            assert!(!stores[1].exists(format!("{key}:lock").as_bytes()).await.unwrap());
        }
    }
    assert_eq!(came_back.into_inner(), 0, "of {rounds} values came back");
}

/// What callers get of a stale value while the server pauses and when it dies: the value, late, and the
/// store's error or, where the options say so, their own computation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_pauses_or_dies_in_the_stale_time() {
    let mut server = Server::start().await.unwrap();
    let patient = config(server.address()).op_timeout(Duration::from_secs(10));
    let kv = ValkeyStore::connect(patient).await.unwrap();
    let hasty = connect(server.address()).await;
    let strict = Cache::<_, u32>::new(kv.clone(), "", OPTIONS);
    let computes =
        Cache::<_, u32>::new(hasty.clone(), "", OPTIONS.on_store_error(OnStoreError::Compute));
    let begun = Arc::new(AtomicU32::new(0));
    let end = Arc::new(Notify::new());
    let get = async |cache: &Cache<ValkeyStore, u32>| {
        let (begun, end) = (begun.clone(), end.clone());
        let got = cache.get_detailed(KEY, move |stale: Option<u32>| async move {
            begun.fetch_add(1, Ordering::SeqCst);
            if stale.is_some() {
                end.notified().await;
            }
            Ok::<_, Error>(stale.unwrap_or_default() + 1)
        });
        ends("a caller", got).await
    };
    kv.set(KEY.as_bytes(), b"0", Some(STALE)).await.unwrap();
    assert_eq!(get(&strict).await.unwrap().value, 0);
    server.command(&["CLIENT", "PAUSE", "300", "ALL"]).await.unwrap();
    end.notify_one();
    for got in join_all((0..20).map(|_| get(&strict))).await {
        assert!(got.unwrap().value <= 1, "the value, after the pause");
    }
    assert!(strict.drain(HANG).await);
    assert_eq!((get(&strict).await.unwrap().value, begun.load(Ordering::SeqCst)), (1, 1));

    kv.set(KEY.as_bytes(), b"5", Some(STALE)).await.unwrap();
    assert_eq!(get(&strict).await.unwrap().value, 5);
    server.kill9();
    end.notify_one();
    let error = get(&strict).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error}");
    assert!(error.is_transient(), "{error}");
    let got = get(&computes).await.unwrap();
    assert_eq!((got.value, got.freshness), (1, Freshness::Fresh));
    server.restart().await.unwrap();
    assert!(strict.drain(HANG).await && computes.drain(HANG).await);
    let (got, _) = common::recovers(async || get(&strict).await).await;
    // The server has forgotten it, or has what the refresh stored after the restart.
    assert!(matches!(got.value, 1 | 6), "{got:?}");
}

/// The lock of a failed computation means "held" to a client that knows nothing of cool-downs: it waits
/// for a while as long as its own lock would last, and computes for itself without storing.
#[tokio::test]
async fn a_client_that_knows_no_cool_downs_takes_one_for_a_lock() {
    let server = Server::start().await.unwrap();
    let kv = connect(server.address()).await;
    let backoff = Duration::from_millis(700);
    let options = GuardedGet::new(Duration::from_secs(60)).backoff(backoff);
    let fails = || async { Err::<&str, _>(Error::new(ErrorKind::Backend, "the origin is down")) };
    kv.guarded_get(KEY, &options, fails).await.unwrap_err();
    let failed = Instant::now();
    let record = kv.get(LOCK.as_bytes()).await.unwrap().expect("a cool-down");
    assert_eq!(record[0], b'!');
    let take = async || server.command(&["SET", LOCK, "1", "NX", "PX", "200"]).await.unwrap();
    let looks = async || server.command(&["GET", KEY]).await.unwrap();
    // Its lock would last for 200 ms, and it looks every 50 ms.
    assert_eq!(take().await, Reply::Nil);
    for _ in 0..4 {
        sleep(Duration::from_millis(50)).await;
        assert_eq!(looks().await, Reply::Nil);
    }
    // It computes, and neither stores nor frees anything. Another one comes and waits likewise.
    assert_eq!(take().await, Reply::Nil);
    assert_eq!(kv.get(LOCK.as_bytes()).await.unwrap(), Some(record));
    let error = kv.guarded_get(KEY, &options, fails).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failing);
    assert!(error.retry_after().is_some_and(|after| after < backoff));
    // When the cool-down has ended, the lock is anybody's.
    let taken = async {
        while take().await == Reply::Nil {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, taken).await.expect("the cool-down does not end");
    assert!(failed.elapsed() + Duration::from_millis(200) >= backoff, "{:?}", failed.elapsed());
    // It stores and frees: what it stored is served here.
    server.command(&["SET", KEY, "theirs", "PX", "60000"]).await.unwrap();
    server.command(&["DEL", LOCK]).await.unwrap();
    assert_eq!(kv.guarded_get(KEY, &options, fails).await.unwrap(), "theirs");
}

/// A client without stale time stores values for their TTL alone. With one, they count as stale: they are
/// served, and refreshed.
#[tokio::test]
async fn a_value_of_a_client_without_stale_time_is_served_and_refreshed() {
    let server = Server::start().await.unwrap();
    let kv = connect(server.address()).await;
    server.command(&["SET", KEY, "7", "PX", "60000"]).await.unwrap();
    let cache = Cache::<_, u32>::new(kv.clone(), "", OPTIONS);
    let compute = |stale: Option<u32>| async move { Ok::<_, Error>(stale.unwrap_or_default() + 1) };
    let got = cache.get_detailed(KEY, compute).await.unwrap();
    assert!(matches!(got.freshness, Freshness::Stale { .. }) && got.value == 7, "{got:?}");
    assert!(cache.drain(HANG).await);
    let got = cache.get_detailed(KEY, compute).await.unwrap();
    assert_eq!((got.value, got.freshness), (8, Freshness::Fresh));
    // And the other way round: it reads the plain value, for the stale time longer.
    assert_eq!(server.command(&["GET", KEY]).await.unwrap(), Reply::Bytes(b"8".to_vec()));
}
