//! A checkout service on derp-kv, and backends on redb and PostgreSQL as a third party would write
//! them.

pub mod access;
pub mod app;
mod body;
mod cache_status;
pub mod config;
pub mod database;
pub mod drain;
pub mod error;
#[cfg(doctest)]
mod guide;
mod health;
pub mod log;
pub mod metrics;
mod observers;
mod orders;
#[cfg_attr(not(feature = "opentelemetry"), path = "no_otlp.rs")]
pub mod otlp;
pub mod page;
pub mod postgres_store;
mod products;
pub mod redb_store;
mod request_id;
pub mod schemes;
pub mod signatures;
pub mod stopping;
mod user;
pub mod webhooks;

/// The project's README, whose example runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The page for those who have such helpers already, whose code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/from-hand-written.md")]
struct FromHandWritten;
