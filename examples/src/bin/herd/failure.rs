//! Callers that want one key at the same moment, of a database that fails.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{GuardedGet, KvStoreExt};
use derp_kv_memory::MemoryStore;
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

const QUERY: Duration = Duration::from_secs(1);
const PAGE: GuardedGet = GuardedGet::new(Duration::from_secs(3600));

#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) callers: usize,
}

async fn query(queries: &AtomicUsize) -> anyhow::Result<Bytes> {
    queries.fetch_add(1, Ordering::Relaxed);
    sleep(QUERY).await;
    anyhow::bail!("the database is down")
}

impl Failure {
    /// Without a store, each caller asks the database for itself.
    pub(crate) async fn run(self, store: Option<MemoryStore>) -> Row {
        let began = Instant::now();
        let queries = Arc::<AtomicUsize>::default();
        let guarded = store.is_some();
        let calls = (0..self.callers).map(|_| {
            let (store, queries) = (store.clone(), queries.clone());
            tokio::spawn(async move {
                let page = match store {
                    Some(kv) => kv.guarded_get("page", &PAGE, || query(&queries)).await,
                    None => query(&queries).await,
                };
                assert!(page.is_err(), "an answer from a database that fails");
                began.elapsed()
            })
        });
        let errors = try_join_all(calls).await.expect("no caller panics");
        Row {
            callers: self.callers,
            guarded,
            queries: queries.load(Ordering::Relaxed),
            last_error: errors.into_iter().max().unwrap_or_default(),
        }
    }
}

pub(crate) struct Row {
    callers: usize,
    guarded: bool,
    queries: usize,
    last_error: Duration,
}

pub(crate) const HEADING: &str = "\
| callers | | queries | last error |
|---|---|---|---|";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.guarded { "`guarded_get`" } else { "each for itself" };
        let last = self.last_error.as_secs_f64();
        write!(f, "| {} | {how} | {} | {last:.2} s |", self.callers, self.queries)
    }
}
