#![doc = include_str!("../README.md")]

mod address;
mod cluster;
mod config;
mod io;
mod node;
mod ops;
mod protocol;
mod store;
#[cfg(feature = "test-server")]
pub mod test_server;

pub use config::{Mode, ValkeyConfig};
pub use store::ValkeyStore;
