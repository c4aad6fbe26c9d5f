//! The herd in one process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use derp_kv_core::{GuardedGet, KvStore, KvStoreExt};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::counted::{Calls, Counted};

/// How long the query takes that computes the value, once it has a connection.
pub(crate) const COMPUTE: Duration = Duration::from_millis(500);
const TTL: Duration = Duration::from_secs(60);

/// `callers` that are let loose on `key`, with or without protection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Herd {
    pub(crate) key: String,
    pub(crate) callers: usize,
    /// Connections of this process to the database.
    pub(crate) connections: u32,
    pub(crate) guarded: bool,
}

/// What a herd did, in one process or in all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) calls: u64,
    /// From when to when each query held a connection, in milliseconds since the herd was let loose.
    pub(crate) queries: Vec<(f64, f64)>,
    /// Of each caller, in milliseconds.
    pub(crate) latencies: Vec<f64>,
}

impl Done {
    pub(crate) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.queries.extend(other.queries);
        self.latencies.extend(other.latencies);
    }

    /// How many connections were held at a time, in milliseconds.
    pub(crate) fn in_use_at(&self, time: f64) -> usize {
        self.queries.iter().filter(|(from, to)| (*from..*to).contains(&time)).count()
    }

    /// The most connections that were held at once.
    pub(crate) fn most_in_use(&self) -> usize {
        self.queries.iter().map(|(from, _)| self.in_use_at(*from)).max().unwrap_or_default()
    }

    /// The latency that `share` of the callers do not exceed, in milliseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
    }
}

impl Herd {
    pub(crate) async fn run(&self, kv: Arc<dyn KvStore>) -> anyhow::Result<Done> {
        let kv = Counted::new(kv, Calls::default());
        let connections = Semaphore::new(self.connections as usize);
        let queries = Mutex::new(Vec::new());
        let began = Instant::now();
        let now = || began.elapsed().as_secs_f64() * 1_000.0;
        let compute = || async {
            let _connection = connections.acquire().await?;
            let from = now();
            tokio::time::sleep(COMPUTE).await;
            queries.lock().unwrap_or_else(PoisonError::into_inner).push((from, now()));
            anyhow::Ok("page")
        };
        let caller = async || {
            let start = now();
            if self.guarded {
                kv.guarded_get(&self.key, &GuardedGet::new(TTL), compute).await?;
            } else if kv.get(self.key.as_bytes()).await?.is_none() {
                let page = compute().await?;
                kv.set(self.key.as_bytes(), page.as_bytes(), Some(TTL)).await?;
            }
            anyhow::Ok(now() - start)
        };
        let latencies = join_all((0..self.callers).map(|_| caller())).await;
        Ok(Done {
            calls: kv.layer().take(),
            latencies: latencies.into_iter().collect::<anyhow::Result<_>>()?,
            queries: queries.into_inner().unwrap_or_else(PoisonError::into_inner),
        })
    }
}
