//! A checkout service on derp-kv, and a backend on redb as a third party would write it.

pub mod app;
pub mod config;
pub mod database;
pub mod error;
mod limit;
mod orders;
mod products;
pub mod redb_store;
mod user;
mod webhooks;

/// The project's README, whose example runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
