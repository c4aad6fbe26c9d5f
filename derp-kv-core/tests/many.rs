//! `Cache::get_many`: one computation for all that is missing, whoever misbehaves.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{REFUSAL, process, refusing};
use derp_kv_core::{Cache, Error, ErrorKind, GuardedGet, KvStore, OnStoreError, Operation};
use derp_kv_memory::MemoryStore;
use tokio::time::{Instant, advance, sleep};

const TTL: Duration = Duration::from_secs(60);
const LOCK_TTL: Duration = Duration::from_secs(2);
const OPTIONS: GuardedGet = GuardedGet::new(TTL).lock_ttl(LOCK_TTL);

/// The keys of each computation.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Vec<u32>>>>);

impl Calls {
    /// A computation that takes so long and gives each key its own number.
    fn compute(
        &self,
        takes: Duration,
    ) -> impl Fn(Vec<String>) -> futures_util::future::BoxFuture<'static, Result<Vec<u32>, Error>>
    + Send
    + Sync
    + 'static {
        let calls = self.clone();
        move |keys| {
            let numbers: Vec<u32> = keys.iter().map(|key| key.parse().unwrap()).collect();
            calls.0.lock().unwrap().push(numbers.clone());
            Box::pin(async move {
                sleep(takes).await;
                Ok(numbers)
            })
        }
    }

    fn take(&self) -> Vec<Vec<u32>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn keys(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_the_order_of_the_keys() {
    let cache = Cache::<_, u32>::new(MemoryStore::new(), "n:", OPTIONS);
    let calls = Calls::default();
    cache.put("2", &2).await.unwrap();
    let asked = keys([3, 2, 1, 3, 2]);
    let values = cache.get_many(&asked, calls.compute(Duration::ZERO)).await.unwrap();
    assert_eq!(values, [3, 2, 1, 3, 2]);
    assert_eq!(calls.take(), [[3, 1]]);
    assert_eq!(cache.get_many(&asked, calls.compute(Duration::ZERO)).await.unwrap(), values);
    assert!(cache.get_many(&keys([]), calls.compute(Duration::ZERO)).await.unwrap().is_empty());
    assert!(calls.take().is_empty());
}

/// Behind a holder that takes longer than `lock_ttl`, all keys fall to the one who waits at once, and are
/// computed at once.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_slow_holder_computes_together_too() {
    for stores in [1, 2] {
        let data = MemoryStore::new();
        let processes = [process(&data), process(&data)];
        let caches =
            [0, 1].map(|n| Cache::<_, u32>::new(processes[n % stores].clone(), "n:", OPTIONS));
        let calls = Calls::default();
        let asked = keys(0..100);
        let slow = caches[0].get_many(&asked, calls.compute(3 * LOCK_TTL / 2));
        let waiting = async {
            sleep(Duration::from_millis(1)).await;
            caches[1].get_many(&asked, calls.compute(3 * LOCK_TTL / 2)).await
        };
        let (first, second) = tokio::join!(slow, waiting);
        assert_eq!(first.unwrap(), second.unwrap());
        let calls = calls.take();
        assert!(calls.len() <= 2, "{} computations, of {calls:?}", calls.len());
    }
}

#[tokio::test(start_paused = true)]
async fn overlapping_calls_compute_no_key_twice() {
    let data = MemoryStore::new();
    let caches = [1, 2].map(|_| Cache::<_, u32>::new(process(&data), "n:", OPTIONS));
    let calls = Calls::default();
    let takes = Duration::from_millis(500);
    let (low, high) = (keys(0..60), keys(40..100));
    let both = tokio::join!(
        caches[0].get_many(&low, calls.compute(takes)),
        caches[1].get_many(&high, calls.compute(takes)),
    );
    assert!(both.0.is_ok() && both.1.is_ok());
    let mut computed: Vec<u32> = calls.take().concat();
    computed.sort_unstable();
    assert_eq!(computed, (0..100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_lock_or_no_read_makes_one_computation() {
    let calls = Calls::default();
    let compute = || calls.compute(Duration::from_millis(10));
    let asked = keys(0..100);
    // A full store refuses no reads, and so no caller; nor does one that is down, where callers say so.
    let computes = OPTIONS.on_store_error(OnStoreError::Compute);
    for (kind, options) in [
        (ErrorKind::Full, OPTIONS),
        (ErrorKind::Unavailable, computes),
        (ErrorKind::Unavailable, computes.stale(TTL)),
    ] {
        let kv = refusing(&MemoryStore::new(), kind);
        let cache = Cache::<_, u32>::new(kv.clone(), "n:", options);
        let began = Instant::now();
        assert_eq!(cache.get_many(&asked, compute()).await.unwrap(), (0..100).collect::<Vec<_>>());
        assert_eq!(calls.take().len(), 1, "{kind:?}");
        // The first refusal goes straight to the computation.
        assert_eq!(began.elapsed(), REFUSAL + Duration::from_millis(10), "{kind:?}");
        assert!(kv.flights().unwrap().is_empty());
    }
    let kv = refusing(&MemoryStore::new(), ErrorKind::Unavailable);
    let cache = Cache::<_, u32>::new(kv, "n:", OPTIONS);
    let error = cache.get_many(&asked, compute()).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Unavailable, Some(Operation::Mget)));
    assert!(calls.take().is_empty());
}

/// The error of the own computation does not wait for what others compute, and says nothing of other keys.
#[tokio::test(start_paused = true)]
async fn a_failure_is_told_at_once_and_cools_no_other_key_down() {
    let data = MemoryStore::new();
    let options = OPTIONS.backoff(TTL);
    let caches = [1, 2].map(|_| Cache::<_, u32>::new(process(&data), "n:", options));
    let calls = Calls::default();
    let slow = tokio::spawn({
        let (cache, compute) = (caches[0].clone(), calls.compute(LOCK_TTL / 2));
        async move { cache.get_many(&keys([9]), compute).await }
    });
    tokio::task::yield_now().await;
    sleep(Duration::from_millis(1)).await;
    let began = Instant::now();
    let fails = |_| async {
        sleep(Duration::from_millis(10)).await;
        Err::<Vec<u32>, _>(Error::new(ErrorKind::Backend, "down"))
    };
    let error = caches[1].get_many(&keys([1, 2, 9]), fails).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Backend, Duration::from_millis(10)));
    slow.await.unwrap().unwrap();
    assert_eq!(caches[0].get_many(&keys([1, 2]), calls.compute(TTL / 2)).await.unwrap(), [1, 2]);
    // A single key may.
    caches[1].get_many(&keys([7]), fails).await.unwrap_err();
    let error = caches[0].get_many(&keys([7]), fails).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failing);
}

#[tokio::test(start_paused = true)]
async fn another_number_of_values_is_refused_and_nothing_is_kept() {
    let kv = MemoryStore::new();
    let cache = Cache::<_, u32>::new(kv.clone(), "n:", OPTIONS);
    for values in [vec![], vec![1], vec![1, 2, 3]] {
        let wrong = move |_: Vec<String>| std::future::ready(Ok::<_, Error>(values.clone()));
        let error = cache.get_many(&keys([1, 2]), wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("for 2"), "{error}");
        assert!(kv.mget(&[b"n:1", b"n:2", b"n:1:lock"]).await.unwrap() == [None, None, None]);
    }
}

#[tokio::test(start_paused = true)]
async fn stale_values_are_served_and_refreshed_together() {
    let cache = Cache::<_, u32>::new(MemoryStore::new(), "n:", OPTIONS.stale(TTL));
    let calls = Calls::default();
    let (asked, slow) = (keys(0..10), Duration::from_millis(500));
    cache.get_many(&asked, calls.compute(slow)).await.unwrap();
    advance(TTL).await;
    for _ in 0..3 {
        let began = Instant::now();
        cache.get_many(&asked, calls.compute(slow)).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        tokio::task::yield_now().await;
    }
    assert!(cache.drain(TTL).await);
    assert_eq!(calls.take().len(), 2);
    advance(TTL / 2).await;
    cache.get_many(&asked, calls.compute(slow)).await.unwrap();
    assert!(calls.take().is_empty());
}

/// Of many keys, one may take so long that another one's stale value is gone by then.
#[tokio::test(start_paused = true)]
async fn nothing_is_returned_that_went_away_while_the_others_were_waited_for() {
    let kv = MemoryStore::new();
    let cache = Cache::<_, u32>::new(kv.clone(), "n:", OPTIONS.stale(TTL));
    kv.set(b"n:1", b"77", Some(Duration::from_secs(1))).await.unwrap();
    let failing = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let compute = move |keys: Vec<String>| {
        let alone = keys == ["1"];
        let fails = alone && failing.swap(false, std::sync::atomic::Ordering::SeqCst);
        async move {
            sleep(if alone { Duration::ZERO } else { 5 * LOCK_TTL }).await;
            if fails {
                return Err(Error::new(ErrorKind::Backend, "down"));
            }
            Ok(keys.iter().map(|key| key.parse().unwrap()).collect::<Vec<u32>>())
        }
    };
    let asked = keys([1, 2]);
    // The refresh failed. By the time that the other key is there, its cool-down is over.
    assert_eq!(cache.get_many(&asked, compute).await.unwrap(), [1, 2]);
}
