//! What a cache sends, counted exactly.

use std::time::Duration;

use derp_kv_conformance::{CountingStore, Counts, Operation};
use derp_kv_core::{Cache, Error, ErrorKind, GuardedGet, KvStore};
use derp_kv_memory::MemoryStore;
use futures_util::future::join_all;
use tokio::time::{advance, sleep};

use crate::common::{Process, process};
use crate::stage::{Answer, KEY, LOCK_TTL, OPTIONS, Origin, RETRY_DELAY, SLOW, STALE, TTL};

use Operation::{CompareAndDelete, CompareAndSet, Delete, Get, GetWithTtl, Mget, Set, SetNx};

type Counted = CountingStore<Process>;

fn counted<const N: usize>(data: &MemoryStore) -> [Counted; N] {
    std::array::from_fn(|_| CountingStore::new(process(data)))
}

fn cached(store: &Counted, options: GuardedGet) -> Cache<Counted, u32> {
    Cache::new(store.clone(), "", options)
}

/// What all processes together have sent.
fn take(stores: &[Counted]) -> Counts {
    let taken: Vec<Counts> = stores.iter().map(CountingStore::take).collect();
    let sum = |operation| taken.iter().map(|counts| counts.of(operation)).sum();
    Counts::from(Operation::PRIMITIVES.map(|operation| (operation, sum(operation))))
}

async fn quiet(caches: &[Cache<Counted, u32>]) {
    for cache in caches {
        assert!(cache.drain(STALE).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_hit_is_one_call() {
    for (options, read) in [
        (GuardedGet::new(TTL), Get),
        (OPTIONS, GetWithTtl),
        (GuardedGet::new(TTL).early(0.5), GetWithTtl),
    ] {
        let (data, origin) = (MemoryStore::new(), Origin::new());
        let [kv] = counted(&data);
        let cache = cached(&kv, options);
        origin.get(&cache).await;
        let miss = Counts::from([(read, 2), (SetNx, 1), (Set, 1), (CompareAndDelete, 1)]);
        assert_eq!(kv.take(), miss);
        origin.get(&cache).await;
        assert_eq!(kv.take(), Counts::from([(read, 1)]));
        origin.try_guarded(&kv, &options).await.unwrap();
        assert_eq!(kv.take(), Counts::from([(read, 1)]));
        assert_eq!(cache.peek(KEY).await.unwrap(), Some(1));
        assert_eq!(kv.take(), Counts::from([(Get, 1)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_five_calls_of_the_whole_fleet() {
    for borrowing in [false, true] {
        let (data, origin) = (MemoryStore::new(), Origin::new());
        data.set(KEY, b"0", Some(STALE)).await.unwrap();
        let stores: [Counted; 3] = counted(&data);
        if borrowing {
            origin.try_guarded(&stores[0], &OPTIONS).await.unwrap();
        } else {
            let cache = cached(&stores[0], OPTIONS);
            origin.get(&cache).await;
            quiet(&[cache]).await;
        }
        let refresh = Counts::from([(GetWithTtl, 2), (SetNx, 1), (Set, 1), (CompareAndDelete, 1)]);
        assert_eq!(take(&stores), refresh, "borrowing: {borrowing}");
    }
}

/// While one refreshes, each call is one read, and each process asks for the lock once a `retry_delay`.
#[tokio::test(start_paused = true)]
async fn a_stale_hit_is_one_call() {
    let (data, origin) = (MemoryStore::new(), Origin::new());
    data.set(KEY, b"0", Some(STALE)).await.unwrap();
    let stores: [Counted; 3] = counted(&data);
    let caches = [0, 1, 2].map(|n| cached(&stores[n], OPTIONS));
    // Less than the lock takes until its first renewal.
    let runs = LOCK_TTL / 4;
    origin.takes(runs * 2);
    origin.get(&caches[0]).await;
    sleep(Duration::from_millis(1)).await;
    take(&stores);
    let step = RETRY_DELAY * 3 / 5;
    let calls = u64::try_from(runs.as_millis() / step.as_millis()).unwrap();
    for _ in 0..calls {
        for cache in &caches {
            let hits = (0..5).map(|_| origin.get(cache));
            assert!(
                join_all(hits).await.iter().all(|(got, took)| got.value == 0 && took.is_zero())
            );
        }
        sleep(step).await;
    }
    // Every second step comes after a `retry_delay`, in two of the processes.
    let tries = calls.div_ceil(2) * 2;
    assert_eq!(take(&stores), Counts::from([(GetWithTtl, calls * 15), (SetNx, tries)]));
    assert_eq!(origin.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_is_four_calls_and_its_cool_down_one_a_hit() {
    let (data, origin) = (MemoryStore::new(), Origin::new());
    data.set(KEY, b"0", Some(STALE)).await.unwrap();
    let stores: [Counted; 2] = counted(&data);
    let caches = [0, 1].map(|n| cached(&stores[n], OPTIONS));
    origin.answers(Answer::Fails);
    origin.get(&caches[0]).await;
    quiet(&caches).await;
    let failed = Counts::from([(GetWithTtl, 2), (SetNx, 1), (CompareAndSet, 1)]);
    assert_eq!(take(&stores), failed);
    for _ in 0..10 {
        sleep(RETRY_DELAY * 2).await;
        join_all((0..10).map(|_| origin.get(&caches[0]))).await;
    }
    quiet(&caches).await;
    assert_eq!(stores[0].take(), Counts::from([(GetWithTtl, 100)]), "it knows of its own");
    for _ in 0..10 {
        sleep(RETRY_DELAY * 2).await;
        join_all((0..10).map(|_| origin.get(&caches[1]))).await;
    }
    quiet(&caches).await;
    let elsewhere = Counts::from([(GetWithTtl, 100), (SetNx, 10)]);
    assert_eq!(stores[1].take(), elsewhere, "another process asks once a `retry_delay`");
    assert_eq!(origin.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_miss_with_a_backoff_is_four_calls_and_its_cool_down_three() {
    let options = GuardedGet::new(TTL).backoff(Duration::from_secs(10));
    for borrowing in [false, true] {
        let (data, origin) = (MemoryStore::new(), Origin::new());
        let [kv] = counted(&data);
        let cache = cached(&kv, options);
        let get = async || match borrowing {
            true => origin.try_guarded(&kv, &options).await.map(drop),
            false => origin.try_get(&cache).await.map(drop),
        };
        origin.answers(Answer::Fails);
        // Nobody looks a second time before it has failed.
        origin.takes(RETRY_DELAY / 2);
        let failed = join_all((0..100).map(|_| get())).await;
        assert!(failed.iter().all(Result::is_err));
        let sent = Counts::from([(Get, 100 + 1), (SetNx, 1), (CompareAndSet, 1)]);
        assert_eq!(kv.take(), sent, "one look of each, and four calls");
        // One caller looks for all that have come at the same time.
        let failing = join_all((0..100).map(|_| get())).await;
        assert!(failing.into_iter().all(|got| got.unwrap_err().kind() == ErrorKind::Failing));
        let sent = kv.take();
        assert_eq!((sent.of(SetNx), sent.of(GetWithTtl)), (1, 1), "{sent:?}");
        get().await.unwrap_err();
        assert_eq!(kv.take(), Counts::from([(Get, 1), (SetNx, 1), (GetWithTtl, 1)]));
        assert_eq!(origin.begun(), 1);
    }
}

async fn get_many(cache: &Cache<Counted, u32>, keys: &[String]) -> Vec<u32> {
    let compute = |missing: Vec<String>| async move {
        sleep(SLOW).await;
        Ok::<_, Error>(missing.iter().map(|key| key.parse::<u32>().unwrap()).collect())
    };
    cache.get_many(keys, compute).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn many_keys_are_read_at_once() {
    const N: u64 = 16;
    let [kv] = counted(&MemoryStore::new());
    let cache = cached(&kv, GuardedGet::new(TTL));
    let keys = keys_from(0, N);
    for hits in [0, N - 5, N] {
        let new = usize::try_from(hits).unwrap();
        let all =
            if hits == 0 { keys.clone() } else { [&keys[..new], &keys_from(N, N - hits)].concat() };
        let values = get_many(&cache, &all).await;
        assert!(values.iter().zip(&all).all(|(value, key)| value.to_string() == *key));
        let misses = N - hits;
        let each = [(SetNx, misses), (Get, misses), (Set, misses), (CompareAndDelete, misses)];
        let sent = kv.take();
        assert_eq!(sent.total(), 1 + 4 * misses, "{hits} hits: {sent:?}");
        assert_eq!(sent - Counts::from(each), Counts::from([(Mget, 1)]), "{hits} hits");
    }
    assert!(get_many(&cache, &[]).await.is_empty());
    assert!(kv.take().total() <= 1);
}

fn keys_from(first: u64, count: u64) -> Vec<String> {
    (first..first + count).map(|n| n.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn many_stale_keys_are_refreshed_by_four_calls_each() {
    const N: u64 = 16;
    let [kv] = counted(&MemoryStore::new());
    let cache = cached(&kv, OPTIONS);
    let keys = keys_from(0, N);
    get_many(&cache, &keys).await;
    let miss = [(GetWithTtl, 2 * N), (SetNx, N), (Set, N), (CompareAndDelete, N)];
    assert_eq!(kv.take(), Counts::from(miss));
    get_many(&cache, &keys).await;
    assert_eq!(kv.take(), Counts::from([(GetWithTtl, N)]));
    advance(TTL).await;
    get_many(&cache, &keys).await;
    get_many(&cache, &keys).await;
    quiet(&[cache]).await;
    let refresh = [(GetWithTtl, 3 * N), (SetNx, N), (Set, N), (CompareAndDelete, N)];
    assert_eq!(kv.take(), Counts::from(refresh));
}

#[tokio::test(start_paused = true)]
async fn writes_are_two_calls() {
    let [kv] = counted(&MemoryStore::new());
    let cache = cached(&kv, OPTIONS);
    cache.put(KEY, &1).await.unwrap();
    assert_eq!(kv.take(), Counts::from([(Delete, 1), (Set, 1)]));
    assert!(cache.invalidate(KEY).await.unwrap());
    assert_eq!(kv.take(), Counts::from([(Delete, 2)]));
}

/// A value that cannot be decoded is there all the time while another process computes a new one. It is
/// looked at once a `retry_delay`, as an absent one is.
#[tokio::test(start_paused = true)]
async fn behind_a_value_that_cannot_be_decoded_a_waiter_looks_once_a_retry_delay() {
    for old in [None, Some(&b"no number"[..])] {
        let (data, origin) = (MemoryStore::new(), Origin::new());
        if let Some(old) = old {
            data.set(KEY, old, None).await.unwrap();
        }
        let stores: [Counted; 2] = counted(&data);
        let caches = [0, 1].map(|n| cached(&stores[n], GuardedGet::new(TTL)));
        let waits = async {
            sleep(RETRY_DELAY / 2).await;
            origin.get(&caches[1]).await
        };
        let (first, (second, _)) = tokio::join!(origin.get(&caches[0]), waits);
        assert_eq!((first.0.value, second.value), (1, 1));
        let looks = u64::try_from(SLOW.as_millis() / RETRY_DELAY.as_millis()).unwrap();
        let sent = stores[1].take();
        // The lock, its holder, and the value.
        assert!(sent.total() <= (looks + 2) * 3, "{old:?}: {sent:?}");
    }
}
