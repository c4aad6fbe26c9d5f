//! Caches that are used from several runtimes, which end or are no longer driven.

use std::sync::OnceLock;
use std::time::Duration;

use derp_kv_core::{Cache, GuardedGet, KvStore};
use derp_kv_memory::MemoryStore;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::common::{Process, process};
use crate::stage::{Answer, KEY, Origin, is_stale};

const LOCK_TTL: Duration = Duration::from_millis(100);
const OPTIONS: GuardedGet = GuardedGet::new(Duration::from_secs(60))
    .stale(Duration::from_secs(600))
    .lock_ttl(LOCK_TTL)
    .backoff(LOCK_TTL);
/// Only guards against a hang.
const HANG: Duration = Duration::from_secs(30);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// A cache with the stale value 0, in front of an origin that answers at once.
async fn stale(data: &MemoryStore) -> (Process, Cache<Process, u32>, Origin) {
    data.set(KEY, b"0", Some(Duration::from_secs(600))).await.unwrap();
    let (store, origin) = (process(data), Origin::new());
    origin.takes(Duration::ZERO);
    let cache = Cache::new(store.clone(), "", OPTIONS);
    (store, cache, origin)
}

/// Asks until the value is another than 0.
async fn refreshed(cache: &Cache<Process, u32>, origin: &Origin) -> u32 {
    let refreshed = async {
        loop {
            match origin.get(cache).await.0 {
                got if got.value == 0 => sleep(LOCK_TTL / 10).await,
                got => return got.value,
            }
        }
    };
    timeout(HANG, refreshed).await.expect("nobody refreshes")
}

/// Background work of a runtime that ends, ends with it; the next runtime begins anew.
#[test]
fn a_static_cache_goes_from_one_runtime_to_the_next() {
    static CACHE: OnceLock<Cache<MemoryStore, u32>> = OnceLock::new();
    let cache = || CACHE.get_or_init(|| Cache::new(MemoryStore::new(), "", OPTIONS));
    let origin = Origin::new();
    origin.takes(Duration::ZERO);
    for round in 1..4 {
        let first = runtime();
        first.block_on(async {
            origin.answers(Answer::Value);
            let (got, _) = origin.get(cache()).await;
            assert_eq!((got.value, is_stale(&got)), (round * 2 - 1, false));
            // Stale at once, and refreshed by a computation that does not end.
            cache().store_stale().await;
            origin.answers(Answer::Hangs);
            assert!(is_stale(&origin.get(cache()).await.0));
            assert!(!cache().drain(LOCK_TTL / 10).await);
        });
        drop(first);
        runtime().block_on(async {
            assert!(cache().drain(HANG).await, "it ended with its runtime");
            assert!(cache().invalidate(KEY).await.unwrap());
        });
    }
}

trait StoreStale {
    async fn store_stale(&self);
}

impl StoreStale for Cache<MemoryStore, u32> {
    async fn store_stale(&self) {
        let short = |_| async {
            Ok::<_, derp_kv_core::Error>(
                derp_kv_core::Fill::new(0_u32).ttl(Duration::from_millis(1)),
            )
        };
        assert!(self.invalidate(KEY).await.unwrap());
        assert_eq!(self.get(KEY, short).await.unwrap(), 0);
        sleep(Duration::from_millis(5)).await;
    }
}

/// A runtime that is shut down in the middle of a computation leaves nothing locked beyond `lock_ttl`.
#[test]
fn a_runtime_is_shut_down_in_the_middle() {
    for stale_value in [false, true] {
        let data = MemoryStore::new();
        let (first, second) = (runtime(), runtime());
        let (store, cache, origin) = first.block_on(stale(&data));
        first.block_on(async {
            if !stale_value {
                data.delete(KEY).await.unwrap();
            }
            origin.answers(Answer::Hangs);
            let _ = timeout(LOCK_TTL / 5, origin.try_get(&cache)).await;
            sleep(LOCK_TTL / 10).await;
            assert_eq!(origin.begun(), 1);
        });
        drop(first);
        origin.answers(Answer::Value);
        assert_eq!(second.block_on(refreshed(&cache, &origin)), 2);
        second.block_on(async {
            assert!(cache.drain(HANG).await);
            assert!(!data.exists(b"k:lock").await.unwrap());
        });
        assert!(store.flights().unwrap().is_empty());
    }
}

/// A refresh on a runtime that nobody drives any more must not keep its process from another one.
#[test]
fn a_refresh_on_a_runtime_that_is_not_driven_is_done_on_another() {
    let data = MemoryStore::new();
    let (idle, driven) = (runtime(), runtime());
    let (_, cache, origin) = idle.block_on(stale(&data));
    idle.block_on(async {
        origin.answers(Answer::Hangs);
        origin.get(&cache).await;
        sleep(LOCK_TTL / 10).await;
        assert_eq!(origin.begun(), 1);
    });
    origin.answers(Answer::Value);
    assert_eq!(driven.block_on(refreshed(&cache, &origin)), 2);
}

/// Nor may the pause after a failure, which such a runtime cannot end.
#[test]
fn a_pause_on_a_runtime_that_is_not_driven_ends_on_another() {
    let data = MemoryStore::new();
    let (idle, driven) = (runtime(), runtime());
    let (store, cache, origin) = idle.block_on(stale(&data));
    origin.answers(Answer::Fails);
    let got = idle.block_on(origin.try_guarded(&store, &OPTIONS)).unwrap();
    assert_eq!((got.0, origin.begun()), (0, 1));
    origin.answers(Answer::Value);
    assert_eq!(driven.block_on(refreshed(&cache, &origin)), 2);
}
