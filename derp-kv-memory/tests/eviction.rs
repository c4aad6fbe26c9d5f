//! What a store with a bound evicts, and what it does not.

use std::time::Duration;

use derp_kv_core::KvStore;
use derp_kv_memory::{ManualClock, MemoryStore};

const BOUND: u64 = 1_000_000;

async fn missing(kv: &MemoryStore, kind: &str, count: usize) -> usize {
    let mut missing = 0;
    for id in 0..count {
        missing += usize::from(!kv.exists(format!("{kind}:{id}").as_bytes()).await.unwrap());
    }
    missing
}

async fn fill(kv: &MemoryStore, kind: &str, count: usize, ttl: Option<Duration>) {
    for id in 0..count {
        kv.set(format!("{kind}:{id}").as_bytes(), &[0; 700], ttl).await.unwrap();
    }
}

#[tokio::test]
async fn expired_values_go_before_live_ones() {
    let clock = ManualClock::new();
    let kv = MemoryStore::builder().max_bytes(BOUND).clock(clock.clone()).build().unwrap();
    fill(&kv, "live", 900, None).await;
    let ttl = Duration::from_millis(1);
    for id in 0..600 {
        kv.set(format!("short:{id}").as_bytes(), &[0; 700], Some(ttl)).await.unwrap();
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(missing(&kv, "live", 900).await, 0);
}

/// The shard of the write has nothing expired: another one has.
#[tokio::test]
async fn an_expired_value_goes_before_live_ones_wherever_it_is() {
    let clock = ManualClock::new();
    let kv = MemoryStore::builder().max_bytes(BOUND).clock(clock.clone()).build().unwrap();
    fill(&kv, "live", 800, None).await;
    let ttl = Duration::from_secs(1);
    kv.set(b"first", &[0; 80_000], Some(ttl)).await.unwrap();
    for next in 0..20 {
        clock.advance(ttl);
        kv.set(format!("large:{next}").as_bytes(), &[0; 80_000], Some(ttl)).await.unwrap();
        assert_eq!(missing(&kv, "live", 800).await, 0, "after {next}");
    }
}

#[tokio::test]
async fn what_was_used_is_spared_once_and_the_rest_goes_in_order() {
    let kv = MemoryStore::builder().max_bytes(BOUND).build().unwrap();
    fill(&kv, "old", 900, None).await;
    for id in (0..900).step_by(10) {
        kv.get(format!("old:{id}").as_bytes()).await.unwrap();
    }
    fill(&kv, "new", 500, None).await;
    let mut left = Vec::new();
    for id in 0..900 {
        if kv.exists(format!("old:{id}").as_bytes()).await.unwrap() {
            left.push(id);
        }
    }
    let oldest_unused = left.iter().copied().find(|id| id % 10 != 0).unwrap();
    assert!((400..700).contains(&oldest_unused), "{oldest_unused}");
    for id in 0..900 {
        let spared = id % 10 == 0 || id >= oldest_unused;
        assert_eq!(left.contains(&id), spared, "{id}");
    }
    assert_eq!(missing(&kv, "new", 500).await, 0);
}

#[tokio::test]
async fn a_value_that_takes_almost_all_of_the_bound_stays() {
    let kv = MemoryStore::builder().max_bytes(BOUND).build().unwrap();
    fill(&kv, "small", 2_000, None).await;
    kv.set(b"large", &[0; 990_000], None).await.unwrap();
    assert!(kv.exists(b"large").await.unwrap());
    kv.set(b"k", b"v", None).await.unwrap();
    assert!(kv.exists(b"k").await.unwrap());
}

#[tokio::test]
async fn a_key_that_changes_regions_is_counted_in_one() {
    let clock = ManualClock::new();
    let kv = MemoryStore::builder().max_bytes(BOUND).clock(clock.clone()).build().unwrap();
    fill(&kv, "live", 900, None).await;
    let second = Duration::from_secs(1);
    for _ in 0..10_000 {
        // Cached, then pinned.
        kv.set(b"n", b"1", Some(second)).await.unwrap();
        kv.incr(b"n", 1, None).await.unwrap();
        // Expired, and cached again.
        clock.advance(second);
        kv.set(b"n", b"1", None).await.unwrap();
        assert_eq!(kv.pinned_bytes(), 0);
        assert!(kv.delete(b"n").await.unwrap());
    }
    assert_eq!(missing(&kv, "live", 900).await, 0);
}
