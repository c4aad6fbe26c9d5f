//! What a computation says of its value, jitter, and absent values: what has gone wrong in other caches,
//! each as a test.

use std::collections::HashSet;
use std::time::Duration;

use derp_kv_core::{Cache, Error, Fill, GuardedGet, KvStore};
use derp_kv_memory::MemoryStore;
use tokio::time::{advance, sleep};

use crate::stage::{KEY, OPTIONS, SLOW, STALE, Stage, TTL, is_stale};

const SECOND: Duration = Duration::from_secs(1);

/// Jitter only ever shortens a TTL, so that nothing is older than TTL and stale time together, and it is
/// another one for each value.
#[tokio::test(start_paused = true)]
async fn jitter_shortens_ttls_and_never_the_stale_time() {
    let data = MemoryStore::new();
    let cache = Cache::<_, u32>::new(data.clone(), "", OPTIONS.jitter(0.1));
    let mut lives = HashSet::new();
    for n in 0..200_u32 {
        cache.get(n.to_string(), move |_| async move { Ok::<_, Error>(n) }).await.unwrap();
        let expiry = data.ttl(n.to_string().as_bytes()).await.unwrap().unwrap();
        lives.insert(expiry.remaining().unwrap());
    }
    assert!(lives.iter().all(|lives| (TTL * 9 / 10 + STALE..=TTL + STALE).contains(lives)));
    assert!(lives.len() > 20, "{} lives of 200 values", lives.len());
}

/// What a computation said of its TTL reached one copy and not the other (FusionCache's adaptive caching
/// has an option for each). There is one copy: fresh for that TTL, and stale for the stale time.
#[tokio::test(start_paused = true)]
async fn what_is_computed_says_how_long_it_is_fresh() {
    let stage = Stage::new(OPTIONS);
    let cache = &stage.caches[0];
    let short = |_| async { Ok::<_, Error>(Fill::new(7_u32).ttl(SECOND)) };
    assert_eq!(cache.get(KEY, short).await.unwrap(), 7);
    assert_eq!(stage.left().await, Some(SECOND + STALE));
    advance(SECOND - Duration::from_millis(1)).await;
    assert!(!is_stale(&stage.origin.get(cache).await.0));
    advance(Duration::from_millis(1)).await;
    let (got, _) = stage.origin.get(cache).await;
    assert_eq!((got.value, is_stale(&got)), (7, true));
    stage.settle().await;
    let (got, _) = stage.origin.get(cache).await;
    assert_eq!((got.value, is_stale(&got)), (1, false));
}

/// A value that is not to be kept leaves the stale one where it is, and its end where it was.
#[tokio::test(start_paused = true)]
async fn what_is_not_to_be_kept_leaves_what_is_there() {
    let stage = Stage::stale(OPTIONS).await;
    let cache = &stage.caches[0];
    for fill in [Fill::unstored(8_u32), Fill::new(8_u32).ttl(Duration::ZERO)] {
        let left = stage.left().await;
        let (got, _) = (cache.get(KEY, move |_| async move { Ok::<_, Error>(fill) }).await, ());
        assert_eq!(got.unwrap(), 1);
        stage.settle().await;
        assert_eq!((stage.left().await, stage.lock().await), (left, None));
        assert_eq!(cache.peek(KEY).await.unwrap(), Some(1));
    }
}

/// Absences are values, with a TTL of their own, and no word is reserved for them (rueidis' idiom is the
/// text `_nil_`).
#[tokio::test(start_paused = true)]
async fn an_absence_is_kept_for_its_own_time_and_no_word_stands_for_it() {
    type Texts = Cache<MemoryStore, Option<String>>;
    let data = MemoryStore::new();
    let cache = Texts::new(data.clone(), "", OPTIONS).absent_ttl(SECOND);
    for (key, text, lives) in [
        ("a", None, SECOND),
        ("b", Some("_nil_"), TTL),
        ("c", Some("null"), TTL),
        ("d", Some(""), TTL),
    ] {
        let text = text.map(str::to_owned);
        let computed = text.clone();
        let got = cache.get(key, move |_| async move { Ok::<_, Error>(computed) }).await.unwrap();
        assert_eq!(got, text);
        assert_eq!(cache.peek(key).await.unwrap(), Some(text.clone()));
        let left = data.ttl(key.as_bytes()).await.unwrap().unwrap().remaining();
        assert_eq!(left, Some(lives + STALE), "{text:?}");
        cache.put(key, &text).await.unwrap();
        let left = data.ttl(key.as_bytes()).await.unwrap().unwrap().remaining();
        assert_eq!(left, Some(lives + STALE), "{text:?}, put");
    }
    advance(SECOND).await;
    let never = |_| async { Ok::<Option<String>, Error>(Some("there".into())) };
    let got = cache.get_detailed("a", never).await.unwrap();
    assert!(got.value.is_none() && is_stale(&got), "{got:?}");
    assert!(cache.drain(STALE).await);
    assert_eq!(cache.peek("a").await.unwrap(), Some(Some("there".to_owned())));
    assert!(!is_stale(&cache.get_detailed("b", never).await.unwrap()));
}

/// With an early refresh, the last part of an absence's own TTL counts, not that of a value's.
#[tokio::test(start_paused = true)]
async fn an_absence_is_refreshed_early_by_its_own_ttl() {
    let data = MemoryStore::new();
    let options = GuardedGet::new(TTL).early(0.5);
    let cache = Cache::<_, Option<u32>>::new(data, "", options).absent_ttl(SECOND);
    let absent = |_| async { Ok::<Option<u32>, Error>(None) };
    let there = |_| async { Ok::<_, Error>(Some(1)) };
    cache.get(KEY, absent).await.unwrap();
    advance(SECOND * 2 / 5).await;
    assert_eq!(cache.get(KEY, there).await.unwrap(), None);
    assert!(cache.drain(SLOW).await);
    assert_eq!(cache.peek(KEY).await.unwrap(), Some(None), "it is not early yet");
    advance(SECOND * 2 / 5).await;
    assert_eq!(cache.get(KEY, there).await.unwrap(), None);
    assert!(cache.drain(SLOW).await);
    assert_eq!(cache.peek(KEY).await.unwrap(), Some(Some(1)));
    sleep(TTL).await;
    assert_eq!(cache.peek(KEY).await.unwrap(), None);
}
