//! The in-memory backend of derp-kv, a [`KvStore`](derp_kv_core::KvStore) inside of the process: for unit
//! tests, single processes and small deployments.
//!
//! | I want | use |
//! |---|---|
//! | a store that drops nothing, like a server without a memory limit | [`MemoryStore::new`] |
//! | a memory bound at which cached values are evicted | [`MemoryConfig::max_bytes`](method@MemoryConfig::max_bytes), with [`OnFull::EvictCached`] |
//! | a memory bound at which writes are refused | the same with [`OnFull::Reject`] |
//! | the options from the table `[kv.memory]` of a `derp.toml` | [`MemoryConfig::from_toml_path`] |
//! | to free the memory of expired keys also while nothing is written | [`MemoryConfig::sweep_every`](method@MemoryConfig::sweep_every) |
//! | to let 24 hours pass at once in a test | tokio's paused clock, or a [`ManualClock`] |
//! | a cache, locks, rate limits, idempotency keys on it | the helpers of `derp-kv-core`: `KvStoreExt` |
//!
//! Locks, counters and records, which coordinate callers, are never evicted: these are the values that
//! `set_nx`, `incr`, `compare_and_set` and `step` have written. Each operation runs synchronously under a
//! lock, so a dropped future leaves nothing half done.
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
//!
//! The user guide in `docs/guide/src` of the repository has more: `configuration.md` on the options,
//! `testing.md` on tests and their clocks, and `production.md` on how much memory an entry takes.

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

// The program of the README is tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
