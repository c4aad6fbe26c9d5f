//! The slowest of many operations after everything expired together, in processor time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use derp_kv_core::KvStore;
use derp_kv_memory::{ManualClock, MemoryStore};
use moka::Expiry;
use rustix::time::ClockId;
use serde_json::{Value, json};

use crate::clock;
use crate::subject::Subject;

const VALUE: [u8; 64] = [b'x'; 64];

pub(crate) async fn of_store(entries: usize, max_bytes: Option<u64>) -> Result<Value> {
    let clock = ManualClock::new();
    let mut options = MemoryStore::builder().clock(clock.clone());
    options.max_bytes = max_bytes;
    let kv = options.build().unwrap();
    let ttl = Duration::from_secs(60);
    for entry in 0..entries {
        kv.set(old(entry).as_bytes(), &VALUE, Some(ttl)).await?;
    }
    clock.advance(ttl + Duration::from_secs(1));
    let write_and_read = async |key: Bytes| {
        kv.set(&key, &VALUE, Some(ttl)).await?;
        ensure!(kv.get(&key).await?.is_some());
        Ok(())
    };
    let name = if max_bytes.is_some() { "derp-kv bounded" } else { "derp-kv unbounded" };
    Ok(row(name, entries, worst(entries, write_and_read).await?))
}

/// Every entry with a TTL of its own, as the store's have.
struct Each(Duration);

impl Expiry<Bytes, Bytes> for Each {
    fn expire_after_create(&self, _: &Bytes, _: &Bytes, _: Instant) -> Option<Duration> {
        Some(self.0)
    }
}

/// Its clock is its own: the TTL has to pass.
pub(crate) async fn of_moka(entries: usize) -> Result<Value> {
    // Longer than the writing takes.
    let ttl = Duration::from_millis(500) + Duration::from_micros(10) * entries as u32;
    let cache = moka::sync::Cache::builder().expire_after(Each(ttl)).build();
    for entry in 0..entries {
        cache.write(&Bytes::from(old(entry)), &VALUE).await?;
    }
    ensure!(cache.read(&Bytes::from(old(0))).await?, "the first expired before the last was there");
    tokio::time::sleep(ttl).await;
    let write_and_read = async |key: Bytes| {
        cache.write(&key, &VALUE).await?;
        ensure!(cache.read(&key).await?);
        Ok(())
    };
    Ok(row("moka", entries, worst(entries, write_and_read).await?))
}

fn old(entry: usize) -> String {
    format!("key:{entry:012}")
}

async fn worst(entries: usize, call: impl AsyncFn(Bytes) -> Result<()>) -> Result<Duration> {
    let mut worst = Duration::ZERO;
    for at in 0..entries / 5 {
        let key = Bytes::from(format!("new:{at:012}"));
        let before = clock(ClockId::ThreadCPUTime);
        call(key).await?;
        worst = worst.max(clock(ClockId::ThreadCPUTime) - before);
    }
    Ok(worst)
}

fn row(subject: &str, entries: usize, worst: Duration) -> Value {
    json!({
        "suite": "memory", "bench": "worst operation after mass expiry", "subject": subject,
        "keys": entries, "worst_us": worst.as_nanos() as f64 / 1e3,
    })
}
