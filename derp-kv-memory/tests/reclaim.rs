//! Memory comes back, whatever the mixture of writes.

use std::time::Duration;

use derp_kv_core::KvStore;
use derp_kv_memory::{MemoryStore, OnFull};

const TTL: Option<Duration> = Some(Duration::from_secs(1));

#[tokio::test(start_paused = true)]
async fn batches_give_back_as_much_as_they_add() {
    let kv = MemoryStore::new();
    const BATCH: u32 = 10_000;
    for round in 0..20_u32 {
        let keys: Vec<_> =
            (0..BATCH).map(|id| [round.to_be_bytes(), id.to_be_bytes()].concat()).collect();
        let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b"v"[..])).collect();
        kv.mset(&items, TTL).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let one = 8 + 1 + 200;
    assert!(kv.pinned_bytes() < 2 * BATCH as usize * one, "{} bytes", kv.pinned_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_large_value_takes_the_room_of_many_small_expired_ones() {
    for mode in [OnFull::Reject, OnFull::EvictCached] {
        let kv = MemoryStore::builder().max_bytes(1_000_000).on_full(mode).build();
        for id in 0..4_000_u32 {
            kv.set_nx(&id.to_be_bytes(), b"small", TTL).await.unwrap();
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(kv.set_nx(b"large", &[0; 900_000], None).await.unwrap());
    }
}
