//! What the allocator says of entries that are gone. One test runs at a time, for all threads of
//! the process are counted.

use std::alloc::System;
use std::time::Duration;

use derp_kv_core::KvStore;
use derp_kv_memory::MemoryStore;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::Mutex;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

#[tokio::test]
async fn deleted_keys_leave_nothing_of_their_deadlines() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let kv = MemoryStore::new();
    let before = held();
    for id in 0..400_000_u32 {
        kv.set(&id.to_be_bytes(), b"v", Some(DAY)).await.unwrap();
    }
    for id in 0..400_000_u32 {
        kv.delete(&id.to_be_bytes()).await.unwrap();
    }
    assert_eq!(kv.pinned_bytes(), 0);
    // What is left is the small tables and heaps that each of the 256 shards keeps.
    let left = held().saturating_sub(before);
    assert!(left < 2_000_000, "{left} bytes");
}
