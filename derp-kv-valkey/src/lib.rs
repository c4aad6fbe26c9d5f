//! A [`KvStore`](derp_kv_core::KvStore) on a Valkey server or cluster. Its connections heal themselves.
//!
//! | I want | use |
//! |---|---|
//! | a store on a server or a cluster | [`ValkeyStore::connect`] |
//! | the configuration from the table `[kv.valkey]` of a `derp.toml` | [`ValkeyConfig::from_toml_path`] |
//! | the configuration from a URL, or in code | [`ValkeyConfig::from_url`], or setters on [`ValkeyConfig::default`] |
//! | a cluster | [`ValkeyConfig::mode`] with [`Mode::Cluster`] |
//! | TLS | [`ValkeyConfig::use_tls`], [`ValkeyConfig::ca_file`], [`ValkeyConfig::client_cert`] |
//! | a password that changes, such as a token | [`ValkeyConfig::password_from`] |
//! | calls that end sooner | [`ValkeyConfig::op_timeout`] |
//! | a command that the trait has no method for | [`ValkeyStore::command`] |
//! | a cache, locks, rate limits, idempotency keys on it | the helpers of `derp-kv-core`: `KvStoreExt` |
//!
//! ```
//! use std::time::Duration;
//! use derp_kv_valkey::ValkeyConfig;
//!
//! let config = ValkeyConfig::from_toml_str(
//!     r#"
//!     [kv.valkey]
//!     addresses = [["kv.example", 6379]]
//!     op_timeout_ms = 500
//!     "#,
//! )?;
//! let same = ValkeyConfig::from_url("valkey://kv.example:6379")?;
//! assert_eq!(config, same.op_timeout(Duration::from_millis(500)));
//! # Ok::<(), derp_kv_core::Error>(())
//! ```
//!
//! The user guide in `docs/guide/src` of the repository has more: `configuration.md` on the options, and
//! `production.md` on time-outs, rights, failover, memory and alerts.
//!
#![doc = include_str!("../README.md")]
// On docs.rs, which runs a nightly toolchain, what a feature brings is marked with its name.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod cluster;
mod config;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod io;
mod node;
mod observe;
mod ops;
mod protocol;
mod store;
#[cfg(all(feature = "test-server", unix))]
pub mod test_server;

pub use cluster::stats::ValkeyStats;
pub use config::{Mode, ValkeyConfig};
pub use node::stats::{NodeState, NodeStats};
pub use ops::command::Repeat;
pub use protocol::reply::{ErrorReply, Reply};
pub use store::ValkeyStore;
