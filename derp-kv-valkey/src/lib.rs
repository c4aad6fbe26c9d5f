#![doc = include_str!("../README.md")]

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
#[cfg(feature = "test-server")]
pub mod test_server;

pub use cluster::stats::ValkeyStats;
pub use config::{Mode, ValkeyConfig};
pub use node::stats::{NodeState, NodeStats};
pub use ops::command::Repeat;
pub use protocol::reply::{ErrorReply, Reply};
pub use store::ValkeyStore;
