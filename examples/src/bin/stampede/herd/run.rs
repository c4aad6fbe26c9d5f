//! The herd in one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use derp_kv_core::{GuardedGet, KvStore, KvStoreExt};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::counted::{Calls, Counted};

/// How long the value takes to compute.
pub(crate) const COMPUTE: Duration = Duration::from_millis(500);
const TTL: Duration = Duration::from_secs(60);

/// `callers` that are let loose on `key`, with or without protection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Herd {
    pub(crate) key: String,
    pub(crate) callers: usize,
    pub(crate) guarded: bool,
}

/// What a herd did, in one process or in all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) computes: u64,
    pub(crate) calls: u64,
    /// Of each caller, in milliseconds.
    pub(crate) latencies: Vec<f64>,
}

impl Done {
    pub(crate) fn add(&mut self, other: Self) {
        self.computes += other.computes;
        self.calls += other.calls;
        self.latencies.extend(other.latencies);
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
        let computes = AtomicU64::new(0);
        let compute = || async {
            computes.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(COMPUTE).await;
            anyhow::Ok("page")
        };
        let caller = async || {
            let start = Instant::now();
            if self.guarded {
                kv.guarded_get(&self.key, &GuardedGet::new(TTL), compute).await?;
            } else if kv.get(self.key.as_bytes()).await?.is_none() {
                let page = compute().await?;
                kv.set(self.key.as_bytes(), page.as_bytes(), Some(TTL)).await?;
            }
            anyhow::Ok(start.elapsed().as_secs_f64() * 1_000.0)
        };
        let latencies = join_all((0..self.callers).map(|_| caller())).await;
        Ok(Done {
            computes: computes.load(Ordering::Relaxed),
            calls: kv.layer().take(),
            latencies: latencies.into_iter().collect::<anyhow::Result<_>>()?,
        })
    }
}
