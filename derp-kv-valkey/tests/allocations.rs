//! A program of its own, because it counts the allocations of all its threads.

use std::alloc::System;
use std::sync::Arc;

use derp_kv_core::KvStore;
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// On average: the boxed future of the trait, the way back of the answer, and the value.
const AT_MOST: f64 = 3.0;
/// Shared buffers grow now and then.
const GROWTH: f64 = 0.02;

const KEY: &[u8] = b"a key of usual length";
const VALUE: &[u8] = &[b'x'; 64];

/// Allocations and reallocations for each of `callers * turns` calls; without a store, those of the
/// tasks themselves.
async fn allocations(store: Option<&Arc<dyn KvStore>>, callers: usize, turns: usize) -> f64 {
    let barrier = Arc::new(Barrier::new(callers + 1));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (store, barrier) = (store.cloned(), barrier.clone());
        tasks.spawn(async move {
            barrier.wait().await;
            barrier.wait().await;
            for _ in 0..turns {
                if let Some(store) = &store {
                    let found = store.get(KEY).await.expect("get");
                    assert_eq!(found.as_deref(), Some(VALUE));
                }
            }
        });
    }
    // Every task has begun before the count does.
    barrier.wait().await;
    let region = Region::new(ALLOCATOR);
    barrier.wait().await;
    while let Some(ended) = tasks.join_next().await {
        ended.expect("every call succeeds");
    }
    let change = region.change();
    (change.allocations + change.reallocations) as f64 / (callers * turns) as f64
}

// One test for all loads: another one beside it would be counted with it.
#[tokio::test]
async fn a_get_allocates_no_more_than_its_bound() {
    let server = Server::start().await.expect("a server");
    let config = ValkeyConfig::default().addresses([server.address()]);
    let store: Arc<dyn KvStore> = Arc::new(ValkeyStore::connect(config).await.expect("connect"));
    store.set(KEY, VALUE, None).await.expect("set");
    let mut too_many = Vec::new();
    for (callers, turns) in [(1, 1_000), (64, 1_000_usize.div_ceil(64))] {
        // The first round fills buffers and caches.
        allocations(Some(&store), callers, turns).await;
        let own = allocations(None, callers, turns).await;
        let each = allocations(Some(&store), callers, turns).await - own;
        if each > AT_MOST + GROWTH {
            too_many.push(format!("{each:.3} with {callers} callers"));
        }
    }
    assert!(too_many.is_empty(), "a get may allocate {AT_MOST} times, not {too_many:?}");
}
