//! `rate_limit`, with exact counts of what it sends.

use std::time::Duration;

use derp_kv_conformance::{CountingStore, Operation};
use derp_kv_core::{ErrorKind, Expiry, KvStore, KvStoreExt, RateLimit};
use derp_kv_memory::MemoryStore;

const WINDOW: Duration = Duration::from_secs(60);
const KEY: &[u8] = b"derp:ratelimit:ada";

#[tokio::test(start_paused = true)]
async fn the_limit_is_exact_and_the_window_ends() {
    let kv = CountingStore::new(MemoryStore::new());
    let limit = RateLimit::new(3, WINDOW);
    for count in 1..=5 {
        let status = kv.rate_limit("ada", &limit.clone()).await.unwrap();
        assert_eq!((status.allowed, status.count), (count <= 3, count));
        assert_eq!(status.remaining, 3_u64.saturating_sub(count));
        assert_eq!(status.retry_after.is_some(), count > 3);
    }
    let counts = kv.take();
    assert_eq!((counts.total(), counts.of(Operation::Incr)), (5, 5));

    tokio::time::advance(Duration::from_millis(58_900)).await;
    let denied = kv.rate_limit("ada", &limit.clone()).await.unwrap();
    assert_eq!(denied.retry_after, Some(Duration::from_millis(1_100)));
    assert_eq!(denied.retry_after_secs(), Some(2));
    // Allowed exactly when told.
    tokio::time::advance(Duration::from_millis(1_099)).await;
    assert!(!kv.rate_limit_peek("ada", &limit.clone()).await.unwrap().allowed);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(kv.rate_limit("ada", &limit).await.unwrap().allowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_simultaneous_calls_exactly_the_limit_is_allowed() {
    for _ in 0..50 {
        let kv = MemoryStore::new();
        let calls: Vec<_> = (0..64)
            .map(|_| {
                let kv = kv.clone();
                tokio::spawn(async move { kv.rate_limit("ada", &RateLimit::new(10, WINDOW)).await })
            })
            .collect();
        let mut allowed = 0;
        for call in calls {
            allowed += u32::from(call.await.unwrap().unwrap().allowed);
        }
        assert_eq!(allowed, 10);
    }
}

#[tokio::test(start_paused = true)]
async fn cost_peek_and_reset() {
    let kv = MemoryStore::new();
    let limit = RateLimit::new(10, WINDOW);
    assert_eq!(kv.rate_limit_peek("ada", &limit.clone()).await.unwrap().count, 0);
    assert!(!kv.exists(KEY).await.unwrap(), "a look counts nothing");
    let status = kv.rate_limit("ada", &limit.clone().cost(7)).await.unwrap();
    assert_eq!((status.count, status.remaining), (7, 3));
    assert!(kv.rate_limit_peek("ada", &limit.clone().cost(3)).await.unwrap().allowed);
    assert!(!kv.rate_limit_peek("ada", &limit.clone().cost(4)).await.unwrap().allowed);
    assert!(kv.rate_limit_reset("ada", &limit.clone()).await.unwrap());
    assert!(!kv.rate_limit_reset("ada", &limit.clone()).await.unwrap());
    for (limit, names) in [
        (limit.clone().cost(11), "cost"),
        (limit.clone().cost(0), "cost"),
        (RateLimit::new(u64::MAX, WINDOW).cost(u64::MAX), "cost"),
        (RateLimit::new(1, Duration::ZERO), "window"),
    ] {
        let error = kv.rate_limit("ada", &limit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(names), "{error}");
    }
    assert!(!kv.exists(KEY).await.unwrap());
    assert!(!kv.rate_limit("bob", &RateLimit::new(0, WINDOW)).await.unwrap().allowed);
}

#[tokio::test(start_paused = true)]
async fn a_counter_without_expiry_is_given_one() {
    let kv = MemoryStore::new();
    kv.set(KEY, b"41", None).await.unwrap();
    let status = kv.rate_limit("ada", &RateLimit::new(10, WINDOW)).await.unwrap();
    assert_eq!((status.allowed, status.count, status.retry_after), (false, 42, Some(WINDOW)));
    assert_eq!(kv.ttl(KEY).await.unwrap(), Some(Expiry::In(WINDOW)));
    tokio::time::advance(WINDOW).await;
    assert!(kv.rate_limit("ada", &RateLimit::new(10, WINDOW)).await.unwrap().allowed);
}

#[tokio::test(start_paused = true)]
async fn what_no_counter_can_hold_is_denied() {
    let kv = MemoryStore::new();
    for limit in [i64::MAX.unsigned_abs(), u64::MAX] {
        let half = RateLimit::new(limit, WINDOW).cost(1 << 62);
        assert!(kv.rate_limit("ada", &half.clone()).await.unwrap().allowed);
        for _ in 0..3 {
            let status = kv.rate_limit("ada", &half.clone()).await.unwrap();
            assert_eq!((status.allowed, status.count), (false, 1 << 62), "it was not counted");
            assert!(!kv.rate_limit_peek("ada", &half.clone()).await.unwrap().allowed);
        }
        assert!(kv.rate_limit_reset("ada", &half).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_counter_denies_and_a_foreign_value_is_an_error() {
    let kv = MemoryStore::new();
    kv.set(KEY, i64::MAX.to_string().as_bytes(), Some(2 * WINDOW)).await.unwrap();
    let status = kv.rate_limit("ada", &RateLimit::new(10, WINDOW)).await.unwrap();
    assert!(!status.allowed);
    assert_eq!(status.retry_after, Some(WINDOW), "never longer than a window");
    kv.set(KEY, b"not a number", None).await.unwrap();
    for error in [
        kv.rate_limit("ada", &RateLimit::new(10, WINDOW)).await.unwrap_err(),
        kv.rate_limit_peek("ada", &RateLimit::new(10, WINDOW)).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotAnInteger);
    }
    assert_eq!(kv.get(KEY).await.unwrap().unwrap(), "not a number");
}

#[tokio::test(start_paused = true)]
async fn a_shorter_window_binds_at_once_and_tells_the_truth() {
    let kv = MemoryStore::new();
    let hour = RateLimit::new(2, Duration::from_secs(3600));
    for _ in 0..3 {
        kv.rate_limit("ada", &hour).await.unwrap();
    }
    for window in [Duration::from_secs(60), Duration::from_secs(2), Duration::from_micros(1_500)] {
        let limit = RateLimit::new(2, window);
        // A peek changes nothing, so it tells how long the counter lasts.
        let peeked = kv.rate_limit_peek("ada", &limit).await.unwrap();
        assert!(!peeked.allowed && peeked.retry_after > Some(window));
        let denied = kv.rate_limit("ada", &limit).await.unwrap();
        let retry_after = denied.retry_after.expect("a denied call is told");
        assert!(!denied.allowed && retry_after <= window + Duration::from_millis(1));
        let left = kv.ttl(b"derp:ratelimit:ada").await.unwrap();
        assert_eq!(left, Some(Expiry::In(retry_after)), "{window:?}");
    }
    // Whoever waits it alone is allowed, and a millisecond less is too early.
    let limit = RateLimit::new(2, Duration::from_secs(60));
    kv.rate_limit_reset("ada", &limit).await.unwrap();
    for _ in 0..3 {
        kv.rate_limit("ada", &limit).await.unwrap();
    }
    let retry_after = kv.rate_limit_peek("ada", &limit).await.unwrap().retry_after.unwrap();
    tokio::time::advance(retry_after - Duration::from_millis(1)).await;
    assert!(!kv.rate_limit_peek("ada", &limit).await.unwrap().allowed);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(kv.rate_limit("ada", &limit).await.unwrap().allowed);
}

#[tokio::test(start_paused = true)]
async fn a_reset_looks_at_nothing_but_the_key_and_a_limit_of_nothing_is_never_allowed() {
    let kv = MemoryStore::new();
    let limit = RateLimit::new(10, Duration::from_secs(60));
    kv.rate_limit("ada", &limit).await.unwrap();
    let lowered = RateLimit::new(3, Duration::ZERO).cost(9);
    assert!(kv.rate_limit_reset("ada", &lowered).await.unwrap());
    let nothing = RateLimit::new(0, Duration::from_secs(60));
    let denied = kv.rate_limit("ada", &nothing).await.unwrap();
    assert_eq!((denied.allowed, denied.retry_after), (false, None));
}
