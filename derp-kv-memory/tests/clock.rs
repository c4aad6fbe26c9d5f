//! Whose clock it is, and when it began.

use std::time::Duration;

use derp_kv_core::{Expiry, KvStore, KvStoreExt};
use derp_kv_memory::{ManualClock, MemoryStore};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn a_store_made_outside_a_paused_runtime_keeps_exact_time_inside() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    // The runtime's clock stands still from here on; the store's first moment is a later one.
    std::thread::sleep(Duration::from_millis(20));
    let kv = MemoryStore::new();
    runtime.block_on(async {
        kv.set(b"k", b"v", Some(DAY)).await.unwrap();
        assert_eq!(kv.ttl(b"k").await.unwrap(), Some(Expiry::In(DAY)));
        tokio::time::advance(DAY - Duration::from_millis(1)).await;
        assert_eq!(kv.ttl(b"k").await.unwrap(), Some(Expiry::In(Duration::from_millis(1))));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(kv.get(b"k").await.unwrap(), None);
    });
}

/// What the page of `ManualClock` says of a lease.
#[tokio::test(start_paused = true)]
async fn a_lease_does_not_follow_a_manual_clock_until_it_is_renewed() {
    let clock = ManualClock::new();
    let kv = MemoryStore::builder().clock(clock.clone()).build().unwrap();
    let ttl = Duration::from_secs(60);
    let first = kv.try_lock("job", ttl).await.unwrap().unwrap();
    clock.advance(ttl);
    assert!(kv.try_lock("job", ttl).await.unwrap().is_some());
    assert!(!first.is_lost());
    tokio::time::sleep(ttl / 2).await;
    assert!(first.is_lost());
    assert!(!first.release().await.unwrap());
}
