//! One async key-value trait, [`KvStore`], and the helpers that web back ends need on top of it.
//!
//! The helpers are methods of [`KvStoreExt`], for every store that is `Clone`: a cache that does
//! not stampede, endpoints that run once per idempotency key, rate limits, deduplication of
//! webhooks, leases. Each is written once over the trait, and holds on every backend that keeps
//! the trait's laws.
//!
//! Backends are crates of their own: `derp-kv-memory`, `derp-kv-valkey`, or yours, proved by
//! `derp-kv-conformance`.

mod cache;
mod coordinate;
mod error;
mod ext;
mod once;
mod rate_limit;
mod singleflight;
mod store;

pub use cache::guarded_get::{GuardedGet, OnStoreError, guarded_get};
pub use cache::invalidate::invalidate;
pub use coordinate::lease::Lease;
pub use coordinate::lock::{lock, try_lock};
pub use error::{Error, ErrorKind, Result};
pub use ext::KvStoreExt;
pub use once::dedup::{Dedup, Processed, already_processed, process_once};
pub use once::idempotency::{Idempotency, Outcome, idempotent_execute};
pub use rate_limit::fixed_window::{
    RateLimit, RateLimitStatus, rate_limit, rate_limit_peek, rate_limit_reset,
};
pub use singleflight::flights::Flights;
pub use store::counter::Counter;
pub use store::expiry::Expiry;
pub use store::kv_store::KvStore;
pub use store::prefixed::Prefixed;
pub use store::ttl::{MAX_TTL, Ttl};
