//! What the allocator says of what a store holds. One test runs at a time, for all threads of the
//! process are counted.

use std::alloc::System;
use std::time::Duration;

use derp_kv_core::KvStore;
use derp_kv_memory::MemoryStore;
use futures_util::TryStreamExt;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::Mutex;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);

/// What the small tables and heaps take that each of the 256 shards keeps.
const KEPT: usize = 2_000_000;

fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn stores() -> [MemoryStore; 2] {
    [MemoryStore::new(), MemoryStore::builder().max_bytes(1 << 30).build().unwrap()]
}

#[tokio::test]
async fn deleted_keys_leave_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    for kv in stores() {
        let before = held();
        for id in 0..400_000_u32 {
            kv.set(&id.to_be_bytes(), b"v", Some(DAY)).await.unwrap();
        }
        for id in 0..400_000_u32 {
            kv.delete(&id.to_be_bytes()).await.unwrap();
        }
        // One after the other as well.
        for _ in 0..100_000 {
            kv.set(b"k", b"v", Some(DAY)).await.unwrap();
            kv.delete(b"k").await.unwrap();
        }
        assert_eq!(kv.pinned_bytes(), 0);
        let left = held().saturating_sub(before);
        assert!(left < KEPT, "{left} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn the_background_sweep_gives_expired_values_back() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let every = Duration::from_millis(20);
    let bounded = MemoryStore::builder().max_bytes(1 << 30);
    for builder in [MemoryStore::builder(), bounded] {
        let before = held();
        let kv = builder.sweep_every(every).build().unwrap();
        for id in 0..50_000_u32 {
            kv.set(&id.to_be_bytes(), &[7; 4_000], Some(SECOND)).await.unwrap();
        }
        assert!(held() - before > 200_000_000);
        tokio::time::sleep(SECOND + 2 * every).await;
        let left = held().saturating_sub(before);
        assert!(left < KEPT, "{left} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn writes_give_expired_values_back() {
    let _alone = ONE_AT_A_TIME.lock().await;
    for kv in stores() {
        let before = held();
        for id in 0..50_000_u32 {
            kv.set(&id.to_be_bytes(), &[7; 4_000], Some(SECOND)).await.unwrap();
        }
        tokio::time::advance(SECOND).await;
        for id in 0..50_000_u32 {
            kv.set(&id.to_le_bytes(), b"", None).await.unwrap();
            kv.delete(&id.to_le_bytes()).await.unwrap();
        }
        let left = held().saturating_sub(before);
        assert!(left < KEPT, "{left} bytes");
    }
}

/// Sizes of values, one after the other: all the same, or by turns.
const SIZES: [&[usize]; 5] =
    [&[0], &[64], &[4_000], &[16_000], &[10, 30_000, 500, 4_000, 60, 9_000]];

/// What an entry takes beside its key and value, at least.
const ENTRY: usize = 400;

/// Writes twice as much as the bound and looks at the store after every write.
async fn fill_twice(
    bound: u64,
    sizes: &[usize],
    ttl: Option<Duration>,
    mut look: impl AsyncFnMut(&MemoryStore),
) {
    let kv = MemoryStore::builder().max_bytes(bound).build().unwrap();
    let mean = sizes.iter().sum::<usize>() / sizes.len() + ENTRY;
    for id in 0..2 * bound as usize / mean {
        let value = vec![7; sizes[id % sizes.len()]];
        kv.set(&(id as u32).to_be_bytes(), &value, ttl).await.unwrap();
        drop(value);
        look(&kv).await;
    }
    let used = reachable(&kv).await;
    let most = sizes.iter().max().unwrap() + ENTRY + (bound / 32) as usize;
    // A deadline takes up to 130 bytes more.
    assert!((used + most) as u64 > bound / 4 * 3, "the bound is not made use of: {used}");
}

async fn reachable(kv: &MemoryStore) -> usize {
    let keys: Vec<_> = kv.scan(b"").try_collect().await.unwrap();
    let mut sum = 0;
    for key in keys {
        sum += key.len() + ENTRY + kv.get(&key).await.unwrap().map_or(0, |value| value.len());
    }
    sum
}

#[tokio::test]
async fn a_bounded_store_holds_what_its_bound_says_after_every_write() {
    let _alone = ONE_AT_A_TIME.lock().await;
    for bound in [1 << 20, 4 << 20] {
        for sizes in SIZES {
            for ttl in [None, Some(DAY)] {
                let (before, mut most) = (held(), 0);
                fill_twice(bound, sizes, ttl, async |_| most = most.max(held() - before)).await;
                let named = format!("bound {bound}, values of {sizes:?}, TTL {ttl:?}");
                assert!(most as u64 <= bound / 4 * 5, "{named}: {most} bytes held");
            }
        }
    }
}

/// moka's own parts count for more than the bound here, so only what can be read is counted.
#[tokio::test]
async fn a_small_bound_is_kept_by_what_can_be_read() {
    let _alone = ONE_AT_A_TIME.lock().await;
    for bound in [64 << 10, 256 << 10] {
        for sizes in SIZES {
            for ttl in [None, Some(DAY)] {
                let mut most = 0;
                fill_twice(bound, sizes, ttl, async |kv| most = most.max(reachable(kv).await))
                    .await;
                let named = format!("bound {bound}, values of {sizes:?}, TTL {ttl:?}");
                assert!(most as u64 <= bound / 4 * 5, "{named}: {most} bytes reachable");
            }
        }
    }
}
