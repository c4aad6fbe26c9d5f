//! One async key-value trait, [`KvStore`], and the helpers that web back ends need on top of it.
//!
//! The helpers are methods of [`KvStoreExt`], for every store that is `Clone`: a cache that does
//! not stampede, endpoints that run once per idempotency key, rate limits, deduplication of
//! webhooks, leases. Each is written once over the trait, and holds on every backend that keeps
//! the trait's laws.
//!
//! Backends are crates of their own: `derp-kv-memory`, `derp-kv-valkey`, or yours, proved by
//! `derp-kv-conformance`.

mod claim;
mod counter;
mod dedup;
mod error;
mod expiry;
mod ext;
mod finish;
mod flights;
mod forward;
mod guarded_get;
mod idempotency;
mod invalidate;
mod lease;
mod lock;
mod names;
mod prefix;
mod rate_limit;
mod record;
mod store;
mod ttl;

pub use counter::Counter;
pub use dedup::{Dedup, Processed, already_processed, process_once};
pub use error::{Error, ErrorKind, Result};
pub use expiry::Expiry;
pub use ext::KvStoreExt;
pub use flights::Flights;
pub use guarded_get::{GuardedGet, OnStoreError, guarded_get};
pub use idempotency::{Idempotency, Outcome, idempotent_execute};
pub use invalidate::invalidate;
pub use lease::Lease;
pub use lock::{lock, try_lock};
pub use prefix::Prefixed;
pub use rate_limit::{RateLimit, RateLimitStatus, rate_limit, rate_limit_peek, rate_limit_reset};
pub use store::KvStore;
pub use ttl::{MAX_TTL, Ttl};
