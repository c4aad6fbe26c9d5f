//! Finding one key in a hundred by its prefix.

use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use derp_kv_memory::MemoryStore;
use rustix::time::ClockId;
use serde_json::{Value, json};

use crate::subject::{Scan, bounded, moka_of, quick_cache_of};
use crate::{clock, median, runtime};

/// One subject after the other: a million keys of all of them at once would not fit everywhere.
/// foyer has no way through its keys.
pub(crate) fn compare_all(entries: usize, push: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
    push(runtime()?.block_on(measure("dashmap", Arc::new(dashmap::DashMap::new()), entries))?)?;
    push(runtime()?.block_on(measure("derp-kv unbounded", MemoryStore::new(), entries))?)?;
    push(runtime()?.block_on(measure("moka", moka_of(1 << 31), entries))?)?;
    push(runtime()?.block_on(measure("derp-kv bounded", bounded(1 << 31), entries))?)?;
    push(runtime()?.block_on(measure("quick_cache", quick_cache_of(2 * entries), entries))?)
}

async fn measure(name: &str, subject: impl Scan, entries: usize) -> Result<Value> {
    for entry in 0..entries {
        let key = Bytes::from(format!("{:02}:{entry:012}", entry % 100));
        subject.write(&key, &[b'x'; 64]).await?;
    }
    let mut spent = Vec::new();
    for _ in 0..5 {
        let before = clock(ClockId::ThreadCPUTime);
        ensure!(subject.scan_for(b"42:").await? == entries / 100, "{name} misses keys");
        spent.push((clock(ClockId::ThreadCPUTime) - before).as_nanos() as f64 / 1e3);
    }
    Ok(json!({
        "suite": "memory", "bench": "scan of 1 % of the keys", "subject": name, "keys": entries,
        "p50_us": median(spent),
    }))
}
