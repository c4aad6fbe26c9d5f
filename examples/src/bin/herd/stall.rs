//! Requests that come one after the other, while the database answers nobody for a while.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{GuardedGet, KvStoreExt};
use derp_kv_memory::MemoryStore;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Not 200, or an answer would come at the very moment at which a request gives up.
const QUERY: Duration = Duration::from_millis(199);
const PAGE: GuardedGet = GuardedGet::new(Duration::from_secs(3600));

#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    /// Between two requests.
    pub(crate) every: Duration,
    /// After which a request gives up.
    pub(crate) patience: Duration,
    pub(crate) stall: Duration,
    /// From the first request to the last.
    pub(crate) lasts: Duration,
}

/// A database that answers nobody before `wakes`.
struct Database {
    wakes: Instant,
    queries: AtomicUsize,
}

impl Database {
    async fn query(&self) -> anyhow::Result<Bytes> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        sleep_until(self.wakes).await;
        sleep(QUERY).await;
        Ok(Bytes::from_static(b"page"))
    }
}

impl Stall {
    /// Without a store, each request asks the database for itself.
    pub(crate) async fn run(self, store: Option<MemoryStore>) -> Row {
        let began = Instant::now();
        let database = Arc::new(Database { wakes: began + self.stall, queries: 0.into() });
        let guarded = store.is_some();
        let mut requests = Vec::new();
        let mut comes = began;
        while comes < began + self.lasts {
            sleep_until(comes).await;
            comes += self.every;
            let (store, database) = (store.clone(), database.clone());
            requests.push(tokio::spawn(async move {
                let page = async {
                    match store {
                        Some(kv) => kv.guarded_get("page", &PAGE, || database.query()).await,
                        None => database.query().await,
                    }
                };
                let answered = matches!(timeout(self.patience, page).await, Ok(Ok(_)));
                answered.then(|| began.elapsed())
            }));
        }
        let requests = join_all(requests).await;
        let answers: Vec<_> = requests.iter().flatten().flatten().copied().collect();
        Row {
            herd: self,
            guarded,
            requests: requests.len(),
            answered: answers.len(),
            queries: database.queries.load(Ordering::Relaxed),
            first_answer: answers.into_iter().min(),
        }
    }
}

pub(crate) struct Row {
    herd: Stall,
    guarded: bool,
    requests: usize,
    answered: usize,
    queries: usize,
    first_answer: Option<Duration>,
}

pub(crate) const HEADING: &str = "\
| requests | give up after | stall | | answered | queries | first answer |
|---|---|---|---|---|---|---|";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { herd: Stall { every, patience, stall, .. }, requests, .. } = self;
        let rate = 1.0 / every.as_secs_f64();
        write!(f, "| {requests}, {rate} a second | {patience:?} | {stall:?} ")?;
        let how = if self.guarded { "`guarded_get`" } else { "each for itself" };
        write!(f, "| {how} | {} | {} ", self.answered, self.queries)?;
        match self.first_answer {
            Some(after) => write!(f, "| {:.2} s |", after.as_secs_f64()),
            None => write!(f, "| never |"),
        }
    }
}
