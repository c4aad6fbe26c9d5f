//! What writers that race must not do to each other, in a store with both regions as well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use derp_kv_core::{Error, KvStore};
use derp_kv_memory::{MemoryStore, OnFull};
use futures_util::TryStreamExt;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Each mode, under a bound that evicts or with room for all.
fn stores(max_bytes: u64) -> [MemoryStore; 3] {
    let bounded = MemoryStore::builder().max_bytes(max_bytes);
    [
        MemoryStore::new(),
        bounded.clone().build().unwrap(),
        bounded.max_bytes(1 << 30).on_full(OnFull::Reject).build().unwrap(),
    ]
}

/// Ends the background task of a test with the test.
struct Background(Arc<AtomicBool>, Vec<tokio::task::JoinHandle<Result<(), Error>>>);

impl Background {
    fn new() -> Self {
        Self(Arc::default(), Vec::new())
    }

    /// Calls `work` with 0, 1, 2 … until the end.
    fn spawn<F>(&mut self, work: impl Fn(u32) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let done = self.0.clone();
        self.1.push(tokio::spawn(async move {
            for number in (0..=u32::MAX).cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                work(number).await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }));
    }

    async fn end(self) {
        self.0.store(true, Ordering::Relaxed);
        for task in self.1 {
            task.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_has_one_holder_while_others_fill_the_store() {
    for kv in stores(100_000) {
        let mut noise = Background::new();
        noise.spawn({
            let kv = kv.clone();
            move |number| {
                let kv = kv.clone();
                async move {
                    let key = (number % 5_000).to_be_bytes();
                    kv.set(&key, &[0; 64], None).await?;
                    kv.delete(&key).await.map(drop)
                }
            }
        });
        let inside = Arc::new(AtomicUsize::new(0));
        let taken = Arc::new(AtomicUsize::new(0));
        let holders = (0..8_u8).map(|holder| {
            let (kv, inside, taken) = (kv.clone(), inside.clone(), taken.clone());
            tokio::spawn(async move {
                let (token, renewed) = ([holder, 0], [holder, 1]);
                for _ in 0..500 {
                    if !kv.set_nx(b"lock", &token, Some(DAY)).await.unwrap() {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                    tokio::task::yield_now().await;
                    assert!(!kv.compare_and_delete(b"lock", b"another's").await.unwrap());
                    assert!(
                        kv.compare_and_set(b"lock", &token, &renewed, Some(DAY)).await.unwrap()
                    );
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    taken.fetch_add(1, Ordering::SeqCst);
                    assert!(kv.compare_and_delete(b"lock", &renewed).await.unwrap());
                }
            })
        });
        for holder in holders.collect::<Vec<_>>() {
            holder.await.unwrap();
        }
        noise.end().await;
        assert!(taken.load(Ordering::SeqCst) > 0);
        assert!(!kv.exists(b"lock").await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_increment_comes_before_or_after_a_set() {
    for kv in stores(1 << 30) {
        for round in 0..5_000_u32 {
            let key: [u8; 4] = round.to_be_bytes();
            // A plain value that moves to the pinned records with its first increment.
            kv.set(&key, b"10", None).await.unwrap();
            let (a, b) = (kv.clone(), kv.clone());
            let set = tokio::spawn(async move { a.set(&key, b"100", None).await });
            let incr = tokio::spawn(async move { b.incr(&key, 1, None).await });
            set.await.unwrap().unwrap();
            let counted = incr.await.unwrap().unwrap().value;
            let left = kv.get(&key).await.unwrap().unwrap();
            match counted {
                11 => assert_eq!(left, &b"100"[..]),
                101 => assert_eq!(left, &b"101"[..]),
                _ => panic!("counted {counted}"),
            }
        }
    }
}

/// Increments key after key, which moves each from the evictable values to the pinned records.
fn promoting(kv: &MemoryStore, keys: &Arc<[Vec<u8>]>) -> Background {
    let mut movers = Background::new();
    let (kv, keys) = (kv.clone(), keys.clone());
    movers.spawn(move |number| {
        let (kv, key) = (kv.clone(), keys[number as usize % keys.len()].clone());
        async move { kv.incr(&key, 1, None).await.map(drop) }
    });
    movers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_always_there_and_found_while_it_changes_regions() {
    for kv in stores(1 << 30) {
        let keys: Arc<[Vec<u8>]> = (0..200_u8).map(|id| vec![b'm', id]).collect();
        for key in keys.iter() {
            kv.set(key, b"0", None).await.unwrap();
        }
        let mut movers = promoting(&kv, &keys);
        for round in 0..200 {
            let found: Vec<_> = kv.scan(b"m").try_collect().await.unwrap();
            let missed = keys.iter().find(|key| !found.contains(&key[..].to_vec().into()));
            assert_eq!(missed, None, "in round {round}");
            for key in keys.iter() {
                assert!(kv.exists(key).await.unwrap());
            }
            // All of them back to the first region, in one step each.
            if round % 10 == 0 {
                movers.end().await;
                let slices: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
                kv.delete_many(&slices).await.unwrap();
                for key in keys.iter() {
                    kv.set(key, b"0", None).await.unwrap();
                }
                movers = promoting(&kv, &keys);
            }
        }
        movers.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_seen_whole() {
    let keys: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"e"];
    for kv in stores(1 << 30) {
        let mut writers = Background::new();
        for writer in 0..2_u32 {
            let kv = kv.clone();
            writers.spawn(move |number| {
                let kv = kv.clone();
                async move {
                    let value = [writer.to_be_bytes(), number.to_be_bytes()].concat();
                    if number % 16 == 15 {
                        return kv.delete_many(&keys).await.map(drop);
                    }
                    // In another order than the reader's.
                    let items: Vec<_> = keys.iter().rev().map(|key| (*key, &value[..])).collect();
                    kv.mset(&items, None).await
                }
            });
        }
        for _ in 0..20_000 {
            let values = kv.mget(&keys).await.unwrap();
            assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        }
        writers.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_yields_lasting_keys_once_while_others_come_and_go() {
    for kv in stores(1 << 30) {
        for id in 0..20_000_u32 {
            kv.set(format!("stay:{id}").as_bytes(), b"v", None).await.unwrap();
        }
        let mut writers = Background::new();
        let writer = kv.clone();
        writers.spawn(move |number| {
            let kv = writer.clone();
            async move {
                let key = format!("go:{}", number % 30_000);
                kv.set(key.as_bytes(), b"v", None).await?;
                let old = format!("go:{}", number.wrapping_add(15_000) % 30_000);
                kv.delete(old.as_bytes()).await.map(drop)
            }
        });
        for _ in 0..5 {
            let mut found = BTreeMap::new();
            let mut keys = kv.scan(b"stay:");
            while let Some(key) = keys.try_next().await.unwrap() {
                *found.entry(key).or_insert(0) += 1;
            }
            assert_eq!(found.len(), 20_000);
            assert!(found.values().all(|times| *times == 1));
        }
        writers.end().await;
    }
}

/// Runs `call` on two threads, and each round at the same moment on both.
fn side_by_side<T: Send>(rounds: u32, call: impl Fn(u32) -> T + Sync) -> Vec<[T; 2]> {
    let arrived = AtomicUsize::new(0);
    let thread = || -> Vec<T> {
        let round = |round| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 2 * (round as usize + 1) {
                std::thread::yield_now();
            }
            call(round)
        };
        (0..rounds).map(round).collect()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(thread);
        let own = thread();
        own.into_iter().zip(other.join().unwrap()).map(|(own, other)| [own, other]).collect()
    })
}

/// The operations of this store never wait.
fn now<T>(call: impl Future<Output = T>) -> T {
    let mut call = std::pin::pin!(call);
    match call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn of_two_at_the_same_moment_one_creates_and_both_count() {
    const ROUNDS: u32 = 20_000;
    for kv in stores(1 << 30) {
        let created = side_by_side(ROUNDS, |round| {
            let key = round.to_be_bytes();
            let created = now(kv.set_nx(&key, b"v", Some(DAY))).unwrap();
            (created, now(kv.incr(b"count", 1, None)).unwrap().value)
        });
        for [(own, _), (other, _)] in &created {
            assert!(own != other, "{own} and {other}");
        }
        let mut counted: Vec<_> = created.iter().flatten().map(|(_, value)| *value).collect();
        counted.sort_unstable();
        assert!(counted.into_iter().eq(1..=2 * i64::from(ROUNDS)));
    }
}
