//! The embedded in-memory backend of derp-kv: for unit tests, single processes and small
//! deployments.
//!
//! [`MemoryStore::new`] is unbounded and drops nothing, like a server without a memory limit.
//! [`MemoryStore::builder`] sets a bound, and what happens at it: cached values are evicted
//! ([`OnFull::EvictCached`]), or writes are refused ([`OnFull::Reject`]). What coordinates callers
//! (locks, counters, records: everything written by `set_nx`, `incr` and `compare_and_*`) is
//! never evicted.
//!
//! Time is tokio's clock, so that a paused test passes a 24-hour TTL at once, or a
//! [`ManualClock`]. The operations are synchronous under a lock: a dropped future leaves nothing
//! half done.
//!
//! ```
//! use std::time::Duration;
//! use derp_kv_core::KvStore;
//! use derp_kv_memory::MemoryStore;
//!
//! # fn main() { tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let kv = MemoryStore::new();
//! kv.set(b"k", b"v", Some(Duration::from_secs(24 * 60 * 60))).await?;
//! tokio::time::advance(Duration::from_secs(24 * 60 * 60)).await;
//! assert_eq!(kv.get(b"k").await?, None);
//! # Ok::<(), derp_kv_core::Error>(()) }).unwrap() }
//! ```

mod budget;
mod clock;
mod config;
mod coop;
mod counts;
mod deadlines;
mod evictable;
mod keyspace;
mod observer;
mod regions;
mod scan;
mod shard;
mod slot;
mod stats;
mod store;
mod sweep;
mod table;
mod wait;
mod waiters;

pub use clock::ManualClock;
pub use config::{MemoryConfig, OnFull};
pub use stats::MemoryStats;
pub use store::MemoryStore;
