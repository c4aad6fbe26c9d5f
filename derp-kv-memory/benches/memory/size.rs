//! Resident memory of one entry.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use derp_kv_core::KvStore;
use derp_kv_memory::MemoryStore;

use crate::subject::{Subject, bounded, foyer_of, quick_cache_of};

/// Those without a TTL have none to keep.
pub(crate) const SUBJECTS: [(&str, &str); 6] = [
    ("derp-kv unbounded", "resident bytes of an entry with TTL"),
    ("derp-kv bounded", "resident bytes of an entry with TTL"),
    ("moka", "resident bytes of an entry with TTL"),
    ("dashmap", "resident bytes of an entry"),
    ("quick_cache", "resident bytes of an entry"),
    ("foyer", "resident bytes of an entry"),
];

const TTL: Duration = Duration::from_secs(3600);
const VALUE: [u8; 64] = [b'x'; 64];

/// To be run in a process of its own: freed memory would blur it.
pub(crate) async fn measure(subject: &str, entries: usize) -> Result<f64> {
    let size = Size { entries, before: resident()? };
    match subject {
        "derp-kv unbounded" => size.of_store(&MemoryStore::new()).await,
        "derp-kv bounded" => size.of_store(&bounded(1 << 31)).await,
        "moka" => {
            let cache = moka::sync::Cache::builder().time_to_live(TTL).build();
            size.of(&cache).await?;
            cache.run_pending_tasks();
            size.now()
        }
        "dashmap" => size.of(&Arc::new(dashmap::DashMap::new())).await,
        "quick_cache" => size.of(&quick_cache_of(2 * entries)).await,
        "foyer" => size.of(&foyer_of(2 * entries)).await,
        subject => bail!("nobody knows {subject}"),
    }
}

struct Size {
    entries: usize,
    before: usize,
}

impl Size {
    fn now(&self) -> Result<f64> {
        Ok((resident()? - self.before) as f64 / self.entries as f64)
    }

    async fn of_store(&self, kv: &MemoryStore) -> Result<f64> {
        for entry in 0..self.entries {
            kv.set(key(entry).as_bytes(), &VALUE, Some(TTL)).await?;
        }
        ensure!(kv.exists(key(0).as_bytes()).await?);
        self.now()
    }

    async fn of(&self, subject: &impl Subject) -> Result<f64> {
        for entry in 0..self.entries {
            subject.write(&Bytes::from(key(entry)), &VALUE).await?;
        }
        ensure!(subject.read(&Bytes::from(key(0))).await?);
        self.now()
    }
}

fn key(entry: usize) -> String {
    format!("key:{entry:012}")
}

fn resident() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse::<usize>()? * 1024)
}
