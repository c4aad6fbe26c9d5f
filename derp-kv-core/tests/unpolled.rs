//! Callers that board a flight and are then not polled: they keep nobody else from an answer.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use derp_kv_core::{Error, GuardedGet, KvStore, KvStoreExt};
use derp_kv_memory::MemoryStore;
use tokio::time::{Instant, timeout};

const OPTIONS: GuardedGet = GuardedGet::new(Duration::from_secs(300));
/// The options' own, by default.
const LOCK_TTL: Duration = Duration::from_secs(2);

/// Polls a call a few times and no more: a leader as far as its computation, another aboard.
macro_rules! polled {
    ($call:expr, $times:expr) => {
        for _ in 0..$times {
            assert!($call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    };
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_is_not_polled_keeps_nobody_from_the_store() {
    let kv = MemoryStore::new();
    let hung = std::future::pending::<Result<&str, Error>>;
    let mut leads = pin!(kv.guarded_get("k", &OPTIONS, hung));
    polled!(leads, 3);
    let mut watches = pin!(kv.guarded_get("k", &OPTIONS, hung));
    polled!(watches, 1);
    let follower = kv.guarded_get("k", &OPTIONS, || async { Ok::<_, Error>("computed") });
    let stored = async {
        tokio::time::sleep(LOCK_TTL / 2).await;
        kv.set(b"k", b"stored", None).await.unwrap();
    };
    let (value, ()) = tokio::join!(timeout(LOCK_TTL * 2, follower), stored);
    let value = value.expect("nobody looks at the store").unwrap();
    assert!(value == "stored" || value == "computed", "{value:?}");
}

#[tokio::test(start_paused = true)]
async fn a_newest_waiter_that_is_not_polled_keeps_the_place_from_nobody() {
    let kv = MemoryStore::new();
    let begun = AtomicU32::new(0);
    let hung = || async {
        begun.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<&str, Error>>().await
    };
    let mut leads = pin!(kv.guarded_get("k", &OPTIONS, hung));
    polled!(leads, 3);
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    let mut waits = pin!(kv.guarded_get("k", &OPTIONS, || async { Ok::<_, Error>("computed") }));
    polled!(waits, 1);
    let mut newest = pin!(kv.guarded_get("k", &OPTIONS, hung));
    polled!(newest, 1);
    let began = Instant::now();
    let value = timeout(LOCK_TTL * 4, waits).await.expect("the place is kept from the others");
    assert_eq!(value.unwrap(), "computed");
    assert!(began.elapsed() <= LOCK_TTL * 3, "{:?}", began.elapsed());
}

/// A very short lock must not make every waiter look at the store at once.
#[tokio::test(start_paused = true)]
async fn with_a_lock_of_a_millisecond_one_waiter_at_a_time_has_the_watch() {
    use derp_kv_conformance::CountingStore;
    let kv = CountingStore::new(MemoryStore::new());
    let options = OPTIONS.lock_ttl(Duration::from_millis(1));
    let calls = (0..200).map(|_| {
        kv.guarded_get("k", &options, || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, Error>("value")
        })
    });
    for value in futures_util::future::join_all(calls).await {
        assert_eq!(value.unwrap(), "value");
    }
    // The renewals of so short a lock are most of them.
    let looks = kv.counts().of(derp_kv_core::Operation::Get);
    assert!(looks <= 200 + 60, "{looks}");
}
