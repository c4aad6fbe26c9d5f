//! Memory comes back, whatever the mixture of writes.

use std::time::Duration;

use derp_kv_core::{ErrorKind, KvStore, Operation};
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
        let kv = MemoryStore::builder().max_bytes(1_000_000).on_full(mode).build().unwrap();
        for id in 0..4_000_u32 {
            kv.set_nx(&id.to_be_bytes(), b"small", TTL).await.unwrap();
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(kv.set_nx(b"large", &[0; 900_000], None).await.unwrap());
    }
}

/// A store that is full of so many pinned records, all expired, and the size of each.
async fn full_of_expired(mode: OnFull, records: u32) -> (MemoryStore, usize) {
    let probe = MemoryStore::new();
    probe.set_nx(&[0; 4], b"small", None).await.unwrap();
    let one = probe.pinned_bytes();
    let bound = u64::from(records) * one as u64;
    let kv = MemoryStore::builder().max_bytes(bound).on_full(mode).build().unwrap();
    for id in 0..records {
        kv.set_nx(&id.to_be_bytes(), b"small", TTL).await.unwrap();
    }
    assert_eq!(kv.pinned_bytes() as u64, bound);
    tokio::time::advance(Duration::from_secs(1)).await;
    (kv, one)
}

#[tokio::test(start_paused = true)]
async fn what_can_never_fit_reclaims_no_more_than_a_write_that_is_taken() {
    for mode in [OnFull::Reject, OnFull::EvictCached] {
        let (kv, one) = full_of_expired(mode, 20_000).await;
        let bound = kv.pinned_bytes();
        let (oversize, more_than_half) = (vec![0; bound], vec![0; bound / 2]);
        let mut batches = vec![[(&b"a"[..], &b"v"[..]), (b"b", &oversize)]];
        if mode == OnFull::Reject {
            // Either alone would fit.
            batches.push([(b"a", &more_than_half), (b"b", &more_than_half)]);
        }
        let error = kv.set_nx(b"large", &oversize, None).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Full, Some(Operation::SetNx)));
        for batch in &batches {
            let error = kv.mset(batch, None).await.unwrap_err();
            assert_eq!((error.kind(), error.operation()), (ErrorKind::Full, Some(Operation::Mset)));
        }
        // Two a key.
        let swept = 2 + 2 * 2 * batches.len();
        assert!(kv.pinned_bytes() >= bound - swept * one, "{mode:?}: {}", kv.pinned_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_room_reclaims_what_it_needs_and_a_step_at_most() {
    let (kv, one) = full_of_expired(OnFull::Reject, 40_000).await;
    let bound = kv.pinned_bytes();
    let keys: Vec<_> = (0..1_000_u32).map(|id| format!("new:{id}")).collect();
    let value = vec![0; 5 * one];
    let items: Vec<_> = keys.iter().map(|key| (key.as_bytes(), &value[..])).collect();
    let probe = MemoryStore::new();
    probe.mset(&items, None).await.unwrap();
    kv.mset(&items, None).await.unwrap();
    // More than the two records a key that each batch sweeps anyway.
    let need = probe.pinned_bytes();
    assert!(need > 2 * 1_000 * one);
    let reclaimed = bound + need - kv.pinned_bytes();
    assert!(reclaimed < need + 256 * one, "{} records", reclaimed / one);
}
