//! A checkout service on derp-kv, and backends on redb and PostgreSQL as a third party would write
//! them.

pub mod app;
pub mod config;
pub mod database;
pub mod error;
mod limit;
mod orders;
pub mod postgres_store;
mod products;
pub mod redb_store;
mod user;
mod webhooks;

/// The project's README, whose example runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
