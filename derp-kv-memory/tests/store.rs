//! What is particular to memory: virtual time, the bound, reclamation, wake-ups.

use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{ErrorKind, Expiry, KvStore, Operation};
use derp_kv_memory::{ManualClock, MemoryStore, OnFull};
use futures_util::TryStreamExt;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test(start_paused = true)]
async fn a_day_passes_at_once_and_exactly() {
    let kv = MemoryStore::new();
    kv.set(b"k", b"v", Some(DAY)).await.unwrap();
    tokio::time::advance(DAY - Duration::from_millis(1)).await;
    assert_eq!(kv.ttl(b"k").await.unwrap(), Some(Expiry::In(Duration::from_millis(1))));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!kv.exists(b"k").await.unwrap());
    assert!(!kv.delete(b"k").await.unwrap());
    assert!(kv.set_nx(b"k", b"w", None).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn real_time_ends_no_ttl_in_virtual_time() {
    for kv in [MemoryStore::new(), MemoryStore::builder().max_bytes(1 << 20).build().unwrap()] {
        kv.set(b"k", b"v", Some(Duration::from_millis(20))).await.unwrap();
        // Blocks the thread for real; the paused clock does not move.
        std::thread::sleep(Duration::from_millis(60));
        assert!(kv.exists(b"k").await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_clock_works_where_tokio_cannot_pause() {
    let clock = ManualClock::new();
    let kv = MemoryStore::builder().clock(clock.clone()).build().unwrap();
    kv.incr(b"n", 1, Some(DAY)).await.unwrap();
    clock.advance(DAY);
    assert_eq!(kv.incr(b"n", 1, None).await.unwrap().value, 1);
    clock.advance(Duration::MAX);
    assert_eq!(kv.ttl(b"n").await.unwrap(), Some(Expiry::Never));
}

#[tokio::test]
async fn eviction_takes_cached_values_and_never_a_pinned_record() {
    let kv = MemoryStore::builder().max_bytes(1 << 20).build().unwrap();
    for id in 0..1_000_u32 {
        assert!(kv.set_nx(format!("lock:{id}").as_bytes(), b"token", None).await.unwrap());
        kv.incr(format!("count:{id}").as_bytes(), 7, None).await.unwrap();
    }
    for id in 0..100_000_u32 {
        kv.set(format!("page:{id}").as_bytes(), &[0; 64], None).await.unwrap();
    }
    assert!(kv.exists(b"page:99999").await.unwrap());
    for id in 0..1_000_u32 {
        let lock = kv.get(format!("lock:{id}").as_bytes()).await.unwrap();
        assert_eq!(lock.as_deref(), Some(&b"token"[..]));
        let count = kv.incr(format!("count:{id}").as_bytes(), 1, None).await.unwrap();
        assert_eq!(count.value, 8);
    }
    let pages: Vec<_> = kv.scan(b"page:").try_collect().await.unwrap();
    assert!(pages.len() < 4_000, "{} pages kept under 1 MiB", pages.len());
}

#[tokio::test(start_paused = true)]
async fn rejecting_stores_refuse_and_take_writes_again_once_ttls_pass() {
    let kv = MemoryStore::builder().max_bytes(100_000).on_full(OnFull::Reject).build().unwrap();
    let mut kept = 0_u32;
    let refused = loop {
        match kv.set(&kept.to_be_bytes(), &[1; 100], Some(DAY)).await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((refused.kind(), refused.operation()), (ErrorKind::Full, Some(Operation::Set)));
    assert!(!refused.may_have_applied() && kept > 100);
    assert!(kv.exists(&0_u32.to_be_bytes()).await.unwrap());
    // A write that needs no more room is taken, and so is a deletion.
    kv.set(&0_u32.to_be_bytes(), &[2; 100], Some(DAY)).await.unwrap();
    assert_eq!(
        kv.mset(&[(b"a", &[0; 100]), (b"b", &[0; 100])], None).await.unwrap_err().kind(),
        ErrorKind::Full
    );
    assert!(!kv.exists(b"a").await.unwrap() && !kv.exists(b"b").await.unwrap());
    assert!(kv.delete(&1_u32.to_be_bytes()).await.unwrap());

    tokio::time::advance(DAY).await;
    for id in 0..kept {
        kv.set(format!("new:{id}").as_bytes(), &[3; 90], None).await.unwrap();
    }
}

#[tokio::test]
async fn a_value_larger_than_the_bound_is_refused_in_both_modes() {
    for mode in [OnFull::EvictCached, OnFull::Reject] {
        let kv = MemoryStore::builder().max_bytes(10_000).on_full(mode).build().unwrap();
        kv.set(b"k", b"small", None).await.unwrap();
        let error = kv.set(b"k", &[0; 10_000], None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(kv.get(b"k").await.unwrap().as_deref(), Some(&b"small"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn everything_expired_leaves_nothing_behind_after_the_background_sweep() {
    let kv = MemoryStore::builder().sweep_every(Duration::from_secs(1)).build().unwrap();
    // All of one moment, so that only the whole hash tells their deadlines apart.
    for id in 0..200_000_u32 {
        kv.set(&id.to_be_bytes(), b"v", Some(Duration::from_secs(10))).await.unwrap();
    }
    assert!(kv.pinned_bytes() > 0);
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(kv.pinned_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn later_writes_give_the_memory_of_expired_records_back() {
    let kv = MemoryStore::new();
    for round in 0..20_u32 {
        for id in 0..2_000_u32 {
            let key = [round.to_be_bytes(), id.to_be_bytes()].concat();
            kv.set(&key, b"v", Some(Duration::from_secs(1))).await.unwrap();
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // Two generations at most: each write takes two expired records for the one it adds.
    assert!(kv.pinned_bytes() < 2 * 2_000 * 200, "{} bytes", kv.pinned_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cached_key_rewritten_very_often_is_still_evicted_and_still_scanned() {
    let kv = MemoryStore::builder().max_bytes(100_000).build().unwrap();
    let writer = {
        let kv = kv.clone();
        tokio::spawn(async move {
            for n in 0..130_000_u32 {
                kv.set(b"hot", &n.to_be_bytes(), None).await.unwrap();
            }
        })
    };
    while !writer.is_finished() {
        if kv.exists(b"hot").await.unwrap() {
            let keys: Vec<_> = kv.scan(b"hot").try_collect().await.unwrap();
            assert!(!keys.is_empty(), "the scan missed a key that was always there");
        }
    }
    writer.await.unwrap();
    for n in 0..2_000_u32 {
        kv.set(&n.to_be_bytes(), &[0; 64], None).await.unwrap();
    }
    assert!(!kv.exists(b"hot").await.unwrap());
    assert!(kv.exists(&1_999_u32.to_be_bytes()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_writes_keep_value_and_expiry_together() {
    for kv in [MemoryStore::new(), MemoryStore::builder().max_bytes(1 << 20).build().unwrap()] {
        for _ in 0..5_000 {
            let (a, b) = (kv.clone(), kv.clone());
            let forever = tokio::spawn(async move { a.set(b"k", b"forever", None).await });
            let day = tokio::spawn(async move { b.set(b"k", b"day", Some(DAY)).await });
            forever.await.unwrap().unwrap();
            day.await.unwrap().unwrap();
            let (value, expiry) = kv.get_with_ttl(b"k").await.unwrap().unwrap();
            assert_eq!(&value[..] == b"forever", expiry == Expiry::Never);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_are_woken_by_the_write_and_leave_nothing_behind() {
    let kv = MemoryStore::new();
    let waiter = {
        let kv = kv.clone();
        tokio::spawn(async move {
            kv.wait_for_change(b"k", None, DAY).await;
            kv.get(b"k").await.unwrap()
        })
    };
    tokio::task::yield_now().await;
    let before = tokio::time::Instant::now();
    kv.set(b"k", b"v", None).await.unwrap();
    assert_eq!(waiter.await.unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(before.elapsed(), Duration::ZERO);
    // It does not wait where the value differs already, and not past the key's expiry.
    kv.wait_for_change(b"k", Some(b"other"), DAY).await;
    kv.set(b"k", b"v", Some(Duration::from_secs(5))).await.unwrap();
    kv.wait_for_change(b"k", Some(b"v"), DAY).await;
    assert_eq!(before.elapsed(), Duration::from_secs(5));
}

/// What a waiter for a change of `k`, which holds `v`, finds when it returns, and after how long.
async fn wait(kv: &MemoryStore) -> (Option<Vec<u8>>, Duration) {
    let began = tokio::time::Instant::now();
    kv.wait_for_change(b"k", Some(b"v"), Duration::from_secs(60 * 60)).await;
    (kv.get(b"k").await.unwrap().map(Into::into), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_waiter_sees_within_a_second_that_its_value_was_evicted() {
    let kv = MemoryStore::builder().max_bytes(100_000).build().unwrap();
    kv.set(b"k", b"v", None).await.unwrap();
    let evict = async {
        for id in 0..1_000_u32 {
            kv.set(&id.to_be_bytes(), &[0; 64], None).await.unwrap();
        }
    };
    let ((left, after), ()) = tokio::join!(wait(&kv), evict);
    assert_eq!(left, None);
    assert!(after <= Duration::from_secs(1), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_sees_within_a_second_that_a_manual_clock_passed_a_deadline() {
    let clock = ManualClock::new();
    let kv = MemoryStore::builder().clock(clock.clone()).build().unwrap();
    kv.set(b"k", b"v", Some(DAY)).await.unwrap();
    let ((left, after), ()) = tokio::join!(wait(&kv), async { clock.advance(DAY) });
    assert_eq!(left, None);
    assert!(after <= Duration::from_secs(1), "{after:?}");
}

#[tokio::test]
async fn the_last_handle_frees_everything() {
    let kv = MemoryStore::builder().sweep_every(Duration::from_millis(1)).build().unwrap();
    let handles: Arc<[MemoryStore]> = vec![kv.clone(), kv.clone()].into();
    kv.set(b"k", b"v", Some(DAY)).await.unwrap();
    drop(handles);
    drop(kv);
    let runtime = tokio::runtime::Handle::current();
    while runtime.metrics().num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn it_works_outside_a_runtime() {
    let kv = MemoryStore::builder().sweep_every(DAY).build().unwrap();
    let mut set = kv.set(b"k", b"v", Some(DAY));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(set.as_mut().poll(&mut context).is_ready());
}

#[tokio::test]
async fn a_key_named_twice_in_a_batch_keeps_the_account_right() {
    let kv = MemoryStore::new();
    let long = [0; 100];
    kv.set(b"k", &long, None).await.unwrap();
    kv.mset(&[(b"k", b""), (b"k", &long)], None).await.unwrap();
    assert!(kv.delete(b"k").await.unwrap());
    // An account that has lost bytes would say now that there is no room.
    kv.set(b"k", &long, None).await.unwrap();
    kv.set(b"other", &long, None).await.unwrap();
}

#[test]
fn the_background_sweep_goes_on_in_the_next_runtime() {
    let kv = MemoryStore::builder().sweep_every(Duration::from_secs(1)).build().unwrap();
    for round in 0..2 {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            kv.set(b"k", b"v", Some(Duration::from_secs(5))).await.unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(kv.pinned_bytes(), 0, "in runtime {round}");
        });
    }
}

#[tokio::test]
async fn a_long_scan_lets_other_tasks_run() {
    for kv in [MemoryStore::new(), MemoryStore::builder().max_bytes(1 << 30).build().unwrap()] {
        for id in 0..100_000_u32 {
            kv.set(&id.to_be_bytes(), b"v", None).await.unwrap();
        }
        let ran = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let other = tokio::spawn({
            let ran = ran.clone();
            async move {
                loop {
                    ran.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        let found: Vec<_> = kv.scan(b"none of them").try_collect().await.unwrap();
        assert!(found.is_empty());
        assert!(ran.load(std::sync::atomic::Ordering::Relaxed) > 10);
        other.abort();
    }
}
