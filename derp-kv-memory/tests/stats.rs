//! What a store counts, exactly.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use derp_kv_core::{CallOutcome, Event, GuardedGet, KvStore, KvStoreExt, Observer, Operation};
use derp_kv_memory::{ManualClock, MemoryStore, OnFull};

const SECOND: Duration = Duration::from_secs(1);

fn key(id: usize) -> Vec<u8> {
    format!("key:{id}").into_bytes()
}

/// Writes until so many entries have expired: each write takes care of some of its shard's.
async fn sweep(kv: &MemoryStore, expired: u64) {
    let mut writes = 0;
    while kv.stats().expired < expired {
        assert!(writes < 100_000, "{:?}", kv.stats());
        for _ in 0..1_000 {
            kv.delete(&key(10_000_000 + writes)).await.unwrap();
            writes += 1;
        }
    }
}

#[tokio::test]
async fn values_that_are_asked_for_are_hits_or_misses() {
    let clock = ManualClock::new();
    let kv = MemoryStore::builder().clock(clock.clone()).build().unwrap();
    kv.set(b"lasting", b"v", None).await.unwrap();
    kv.set(b"short", b"v", Some(SECOND)).await.unwrap();
    kv.get(b"lasting").await.unwrap();
    kv.get_with_ttl(b"short").await.unwrap();
    kv.mget(&[b"lasting", b"short", b"lasting", b"absent"]).await.unwrap();
    kv.get(b"absent").await.unwrap();
    let stats = kv.stats();
    assert_eq!((stats.hits, stats.misses), (5, 2));

    clock.advance(SECOND);
    kv.get(b"short").await.unwrap();
    kv.get_with_ttl(b"short").await.unwrap();
    kv.clone().mget(&[b"short"]).await.unwrap();
    assert_eq!((kv.stats().hits, kv.stats().misses), (5, 5), "an expired value is a miss");

    // What asks for no value is neither.
    kv.exists(b"lasting").await.unwrap();
    kv.ttl(b"absent").await.unwrap();
    kv.set_nx(b"lasting", b"v", None).await.unwrap();
    kv.incr(b"count", 1, None).await.unwrap();
    kv.compare_and_delete(b"count", b"1").await.unwrap();
    kv.delete(b"absent").await.unwrap();
    assert_eq!((kv.stats().hits, kv.stats().misses), (5, 5));
    assert_eq!(MemoryStore::new().stats().hits, 0, "another store's");
}

#[tokio::test]
async fn entries_and_bytes_are_those_that_are_held() {
    for on_full in [None, Some(OnFull::EvictCached), Some(OnFull::Reject)] {
        let mut options = MemoryStore::builder();
        if let Some(on_full) = on_full {
            options = options.max_bytes(1 << 20).on_full(on_full);
        }
        let kv = options.build().unwrap();
        assert_eq!((kv.stats().entries, kv.stats().bytes), (0, 0));
        kv.set(b"cached", &[0; 1_000], None).await.unwrap();
        kv.set_nx(b"pinned", &[0; 2_000], None).await.unwrap();
        let both = kv.stats();
        assert_eq!(both.entries, 2);
        assert!((3_000..4_000).contains(&both.bytes), "{both:?}");
        kv.set(b"cached", &[0; 500], None).await.unwrap();
        assert_eq!(kv.stats().entries, 2);
        assert_eq!(both.bytes - kv.stats().bytes, 500);
        kv.delete(b"cached").await.unwrap();
        assert_eq!((kv.stats().entries, kv.stats().bytes), (1, kv.pinned_bytes()));
        kv.compare_and_delete(b"pinned", &[0; 2_000]).await.unwrap();
        assert_eq!((kv.stats().entries, kv.stats().bytes), (0, 0));
        assert_eq!((kv.stats().evictions, kv.stats().expired), (0, 0));
    }
}

/// Of every region: written by `set`, and by `set_nx`.
#[tokio::test]
async fn what_a_sweep_gives_back_has_expired() {
    let clock = ManualClock::new();
    for bound in [None, Some(100 << 20)] {
        let mut options = MemoryStore::builder().clock(clock.clone());
        options.max_bytes = bound;
        let kv = options.build().unwrap();
        for id in 0..1_000 {
            kv.set(&key(id), b"v", Some(SECOND)).await.unwrap();
            kv.set_nx(&key(1_000 + id), b"v", Some(SECOND)).await.unwrap();
        }
        for id in 0..100 {
            kv.delete(&key(id)).await.unwrap();
            kv.expire(&key(100 + id), 10 * SECOND).await.unwrap();
        }
        assert_eq!((kv.stats().expired, kv.stats().entries), (0, 1_900));
        clock.advance(SECOND);
        sweep(&kv, 1_800).await;
        let stats = kv.stats();
        assert_eq!((stats.expired, stats.evictions, stats.entries), (1_800, 0, 100), "{stats:?}");
        clock.advance(10 * SECOND);
    }
}

#[tokio::test]
async fn what_made_room_was_evicted() {
    let kv = MemoryStore::builder().max_bytes(1_000_000).build().unwrap();
    for id in 0..5_000 {
        kv.set(&key(id), &[0; 700], None).await.unwrap();
        // A value that is written over was not evicted.
        kv.set(&key(id), &[1; 700], None).await.unwrap();
    }
    for large in 0..10 {
        kv.set(&key(5_000 + large), &[0; 300_000], None).await.unwrap();
    }
    for id in 0..20 {
        kv.set_nx(&key(6_000 + id), b"pinned", None).await.unwrap();
    }
    let before = kv.stats();
    assert_eq!(before.evictions, 5_000 + 10 + 20 - before.entries as u64);
    assert!(before.entries < 1_500, "{before:?}");

    // Nor was one that is deleted, nor one that moves to the pinned ones.
    let mut gone = 0;
    for id in 0..5_010 {
        let done = match id % 2 {
            0 => kv.delete(&key(id)).await.unwrap(),
            _ => kv.compare_and_set(&key(id), &[1; 700], b"pinned", None).await.unwrap(),
        };
        gone += u64::from(done);
    }
    assert!(gone > 0);
    assert_eq!(kv.stats().evictions, before.evictions);
    assert_eq!(kv.stats().expired, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_count_is_lost_among_racing_callers() {
    const TASKS: usize = 8;
    const ROUNDS: usize = 2_000;
    let clock = ManualClock::new();
    let kv = MemoryStore::builder().max_bytes(1_000_000).clock(clock.clone()).build().unwrap();
    kv.set_nx(b"hot", b"v", None).await.unwrap();
    let watched = tokio::spawn({
        let kv = kv.clone();
        async move {
            let mut before = kv.stats();
            while before.hits < (TASKS * ROUNDS) as u64 {
                let now = kv.stats();
                let grows = before.hits <= now.hits && before.misses <= now.misses;
                assert!(grows && before.evictions <= now.evictions, "{before:?} {now:?}");
                before = now;
                tokio::task::yield_now().await;
            }
        }
    });
    let tasks = (0..TASKS).map(|task| {
        let (kv, clock) = (kv.clone(), clock.clone());
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let id = task * ROUNDS + round;
                kv.set(&key(id), &[0; 700], None).await.unwrap();
                kv.set_nx(&key(1_000_000 + id), b"v", Some(SECOND)).await.unwrap();
                kv.mget(&[b"hot", b"absent"]).await.unwrap();
                clock.advance(Duration::from_millis(1));
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    watched.await.unwrap();
    let stats = kv.stats();
    let asked = (TASKS * ROUNDS) as u64;
    assert_eq!((stats.hits, stats.misses), (asked, asked));
    let mut left = 0;
    for id in 0..TASKS * ROUNDS {
        left += u64::from(kv.exists(&key(id)).await.unwrap());
    }
    assert_eq!(stats.evictions, asked - left);
    assert_eq!(stats.entries as u64, left + 1 + asked - stats.expired, "{stats:?}");
    clock.advance(SECOND);
    sweep(&kv, asked).await;
    assert_eq!(kv.stats().expired, asked);
}

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<(Operation, CallOutcome)>>);

impl Observer for Heard {
    fn event(&self, event: Event<'_>) {
        if let Event::Answered { operation, outcome, .. } = event {
            self.0.lock().unwrap().push((operation, outcome));
        }
    }
}

#[tokio::test]
async fn the_observer_of_the_options_hears_what_the_helpers_do() {
    const PAGES: GuardedGet = GuardedGet::new(SECOND);
    let heard = Arc::new(Heard::default());
    let options = MemoryStore::builder().observer(heard.clone());
    assert_eq!(options, options.clone());
    assert_ne!(options, MemoryStore::builder());
    assert_ne!(options, MemoryStore::builder().observer(heard.clone()));
    let kv = options.build().unwrap();
    assert!(kv.observer().is_some() && MemoryStore::new().observer().is_none());
    for _ in 0..2 {
        kv.clone().guarded_get("k", &PAGES, || async { anyhow::Ok("page") }).await.unwrap();
    }
    let get = Operation::GuardedGet;
    let expected = [(get, CallOutcome::Computed), (get, CallOutcome::Hit)];
    assert_eq!(*heard.0.lock().unwrap(), expected);
}
