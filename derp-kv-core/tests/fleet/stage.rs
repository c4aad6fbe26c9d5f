//! An origin that answers as a test wants, and processes that cache what it says.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use derp_kv_core::bytes::Bytes;
use derp_kv_core::{
    Cache, Error, ErrorKind, Freshness, Got, GuardedGet, KvStore, KvStoreExt, Result, StaleCause,
};
use derp_kv_memory::MemoryStore;
use tokio::time::{Instant, advance, sleep};

use crate::common::{Process, process};

pub(crate) const TTL: Duration = Duration::from_secs(60);
pub(crate) const STALE: Duration = Duration::from_secs(600);
pub(crate) const SLOW: Duration = Duration::from_millis(500);
pub(crate) const BACKOFF: Duration = Duration::from_secs(10);
/// The options' own, by default.
pub(crate) const LOCK_TTL: Duration = Duration::from_secs(2);
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(50);
pub(crate) const OPTIONS: GuardedGet = GuardedGet::new(TTL).stale(STALE);

pub(crate) const KEY: &[u8] = b"k";
pub(crate) const LOCK: &[u8] = b"k:lock";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// The number of the query, from 1 on.
    Value,
    Fails,
    Panics,
    Hangs,
}

/// What is cached.
#[derive(Clone, Debug)]
pub(crate) struct Origin(Arc<State>);

#[derive(Debug)]
struct State {
    answer: Mutex<(Answer, Duration)>,
    begun: AtomicU32,
}

impl Origin {
    pub(crate) fn new() -> Self {
        let answer = Mutex::new((Answer::Value, SLOW));
        Self(Arc::new(State { answer, begun: AtomicU32::new(0) }))
    }

    pub(crate) fn answers(&self, answer: Answer) {
        self.0.answer.lock().unwrap().0 = answer;
    }

    pub(crate) fn takes(&self, how_long: Duration) {
        self.0.answer.lock().unwrap().1 = how_long;
    }

    /// How many queries have begun.
    pub(crate) fn begun(&self) -> u32 {
        self.0.begun.load(Ordering::SeqCst)
    }

    pub(crate) async fn ask(self) -> Result<u32> {
        let number = self.0.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let (answer, takes) = *self.0.answer.lock().unwrap();
        sleep(takes).await;
        match answer {
            Answer::Value => Ok(number),
            Answer::Fails => Err(Error::new(ErrorKind::Backend, "the origin is down")),
            // Without the message of a panic in the output.
            Answer::Panics => resume_unwind(Box::new("on purpose")),
            Answer::Hangs => std::future::pending().await,
        }
    }

    pub(crate) async fn try_get<S>(&self, cache: &Cache<S, u32>) -> Result<Got<u32>>
    where
        S: KvStore + Clone,
    {
        let origin = self.clone();
        cache.get_detailed(KEY, move |_stale| origin.ask()).await
    }

    /// What a caller gets, and after which time.
    pub(crate) async fn get<S>(&self, cache: &Cache<S, u32>) -> (Got<u32>, Duration)
    where
        S: KvStore + Clone,
    {
        let began = Instant::now();
        let got = self.try_get(cache).await.unwrap();
        (got, began.elapsed())
    }

    pub(crate) async fn try_guarded<S>(
        &self,
        store: &S,
        options: &GuardedGet,
    ) -> Result<(u32, Freshness)>
    where
        S: KvStore + Clone,
    {
        let compute = || async { self.clone().ask().await.map(|number| number.to_string()) };
        let got = store.guarded_get_detailed(KEY, options, compute).await?;
        let value = std::str::from_utf8(&got.value).unwrap().parse().unwrap();
        Ok((value, got.freshness))
    }
}

/// One origin, and two processes with a cache in front of it.
pub(crate) struct Stage {
    pub(crate) data: MemoryStore,
    pub(crate) stores: [Process; 2],
    pub(crate) caches: [Cache<Process, u32>; 2],
    pub(crate) origin: Origin,
}

impl Stage {
    pub(crate) fn new(options: GuardedGet) -> Self {
        let data = MemoryStore::new();
        let stores = [process(&data), process(&data)];
        let caches = stores.clone().map(|store| Cache::new(store, "", options));
        Self { data, stores, caches, origin: Origin::new() }
    }

    /// With the value 1 in the store, whose TTL of a minute has just ended.
    pub(crate) async fn stale(options: GuardedGet) -> Self {
        let stage = Self::new(options);
        let (got, took) = stage.origin.get(&stage.caches[0]).await;
        assert_eq!((got.value, took), (1, SLOW));
        advance(TTL).await;
        stage
    }

    /// Waits until no refresh runs.
    pub(crate) async fn settle(&self) {
        for cache in &self.caches {
            assert!(cache.drain(STALE).await, "a computation hangs");
        }
    }

    /// What is left of the value in the store.
    pub(crate) async fn left(&self) -> Option<Duration> {
        self.data.ttl(KEY).await.unwrap().and_then(|expiry| expiry.remaining())
    }

    pub(crate) async fn lock(&self) -> Option<Bytes> {
        self.data.get(LOCK).await.unwrap()
    }
}

pub(crate) fn is_stale<T>(got: &Got<T>) -> bool {
    matches!(got.freshness, Freshness::Stale { .. })
}

pub(crate) fn cause<T: std::fmt::Debug>(got: &Got<T>) -> StaleCause {
    match got.freshness {
        Freshness::Stale { cause, .. } => cause,
        _ => panic!("it is fresh: {got:?}"),
    }
}
