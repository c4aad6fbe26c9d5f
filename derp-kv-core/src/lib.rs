//! One async key-value trait, [`KvStore`], and the helpers that web back ends need on top of it.
//!
//! Each backend is a crate: `derp-kv-memory` for one process, `derp-kv-valkey` for a Valkey server or
//! cluster, or your own, which `derp-kv-conformance` tests. The helpers are methods of [`KvStoreExt`], and
//! functions over any store that is `Clone`. They keep their promises on every backend that keeps the laws
//! of the trait, which are the promises in its documentation.
//!
//! | I want | use |
//! |---|---|
//! | to read, write, count, compare and swap | the methods of [`KvStore`] |
//! | a cache whose misses make one query, in any number of processes | [`guarded_get`] |
//! | a typed cache whose refreshes run in the background, with stale data where the origin fails | [`Cache`] |
//! | to change a cached value, and no running computation brings the old one back | [`invalidate`], [`refresh`] |
//! | an endpoint that runs once for each idempotency key | [`idempotent_execute`] |
//! | to replay the whole response, with its status code and headers | [`Reply`], as the answer of the work |
//! | to decide what happens after an attempt that vanished, as in a crash | [`OnAbandoned`], [`idempotent_forget`], [`Attempt`] |
//! | to handle each webhook at least once, or at most once | [`process_once`], [`already_processed`] |
//! | a limit on calls: cheap, even or strict | [`rate_limit`] with a [`RateLimit`], [`RateLimiter`] |
//! | the limits and the idempotency keys as layers of an HTTP service | the feature `tower`: `RateLimitLayer`, `IdempotencyLayer` |
//! | one holder at a time | [`try_lock`], [`lock`] |
//! | a separate store for each tenant | [`Prefixed`] |
//! | something around every call, such as a deadline | [`Layered`] with a [`Layer`] |
//! | to count what the helpers do | an [`Observer`] |
//! | spans and events of the helpers in a trace or a log | the feature `tracing` |
//! | to know what to do with an error | [`ErrorKind`], [`Error::may_have_applied`], [`Error::retry_after`] |
//! | a backend of my own | an implementation of [`KvStore`]; this crate re-exports [`async_trait`], [`bytes`] and [`futures_core`] in the versions that the trait needs |
//!
//! ```
//! use std::time::Duration;
//! use derp_kv_core::{GuardedGet, KvStoreExt};
//!
//! # #[tokio::main] async fn main() -> anyhow::Result<()> {
//! # let kv = derp_kv_memory::MemoryStore::new();
//! const PAGES: GuardedGet = GuardedGet::new(Duration::from_secs(300));
//! let page = kv
//!     .guarded_get("product:42", &PAGES, || async {
//!         anyhow::Ok("<h1>A kettle</h1>") // the slow query
//!     })
//!     .await?;
//! assert_eq!(page, "<h1>A kettle</h1>");
//! # Ok(()) }
//! ```
//!
//! The repository has a user guide in `docs/guide/src`, with every option, with code that runs, and with
//! the limits of each promise. `basic-operations.md`, `batches.md` and `other-primitives.md` are about the
//! trait; `cache.md`, `idempotency.md`, `rate-limits.md`, `webhooks.md` and `locks.md` about the helpers;
//! `errors.md`, `testing.md`, `observing.md` and `production.md` about a service that uses them;
//! `writing-a-backend.md` about your own backend. `docs/http.md` lists the responses of the layers.

// On docs.rs, which runs a nightly toolchain, what a feature brings is marked with its name.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cache;
mod coordinate;
mod error;
mod ext;
mod http;
mod observe;
mod once;
mod operation;
mod rate_limit;
mod singleflight;
mod store;

pub use cache::codec::{Codec, Json, Raw};
pub use cache::fill::{Fill, IntoFill};
pub use cache::freshness::{Freshness, Got, Source, StaleCause};
pub use cache::guarded_get::{guarded_get, guarded_get_detailed};
pub use cache::handle::Cache;
pub use cache::invalidate::{invalidate, refresh};
pub use cache::options::{GuardedGet, OnStoreError};
pub use coordinate::lease::Lease;
pub use coordinate::lock::{Lock, lock, try_lock};
pub use error::{Error, ErrorKind, Result};
pub use ext::KvStoreExt;
// Beside the crate of the same name, the module must say that it is ours.
pub use self::http::headers::{HeaderRevision, QuotaPolicies};
pub use self::http::problem::Problem;
#[cfg(feature = "tower")]
pub use self::http::tower::{
    body::ResponseBody,
    by_extension::ByExtension,
    by_header::ByHeader,
    by_peer::ByPeer,
    client_id::{ClientId, Or},
    idempotency::{IdempotencyFuture, IdempotencyLayer, Idempotent},
    nothing_done::NothingDone,
    rate_limit::{RateLimitFuture, RateLimitLayer, RateLimited},
    request_body::RequestBody,
};
pub use observe::call_outcome::CallOutcome;
pub use observe::decided_by::DecidedBy;
pub use observe::event::{ComputeReason, Event};
pub use observe::link_state::LinkState;
pub use observe::observer::Observer;
pub use once::answer::Answer;
pub use once::attempts::Attempt;
pub use once::dedup::{
    Processed, already_processed, process_forget, process_once, process_once_with,
};
pub use once::id::id_of;
pub use once::idempotency::{idempotent_execute, idempotent_execute_with, idempotent_forget};
pub use once::options::{Dedup, Idempotency, OnAbandoned};
pub use once::record::Outcome;
pub use once::reply::Reply;
pub use operation::Operation;
pub use rate_limit::decide::{rate_limit, rate_limit_peek, rate_limit_refund, rate_limit_reset};
pub use rate_limit::limit::RateLimit;
pub use rate_limit::limiter::RateLimiter;
pub use rate_limit::status::RateLimitStatus;
pub use rate_limit::without_store::WithoutStore;
pub use singleflight::flights::Flights;
#[cfg(feature = "mutants")]
#[doc(hidden)]
pub use singleflight::mutant::Mutant;
pub use store::counter::Counter;
pub use store::expiry::Expiry;
pub use store::kv_store::KvStore;
pub use store::layered::{Layer, Layered};
pub use store::observe::Observe;
pub use store::prefixed::Prefixed;
pub use store::step::Step;
pub use store::step::ask::Ask;
pub use store::step::change::Change;
pub use store::step::future::{StepAtOnce, StepFuture};
pub use store::step::limits::LimitsStep;
pub use store::step::record::Value;
pub use store::step::smooth::{SmoothLimit, SmoothStep};
pub use store::step::standing::{Standing, Stepped};
pub use store::step::strict::{StrictLimit, StrictStep};
pub use store::ttl::{MAX_TTL, Ttl};

// What an implementation of the trait is written with, in the versions that the trait names.
pub use {async_trait, bytes, futures_core};

// The program of the README is tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
