#![doc = include_str!("../README.md")]

mod address;
mod backoff;
mod batch;
mod commands;
mod config;
mod dial;
mod discovery;
mod failure;
mod glob;
mod hello;
mod link;
mod ownership;
mod reply;
mod request;
mod router;
mod scan;
mod script;
mod slots;
mod store;
mod stream;
mod task;
#[cfg(feature = "test-server")]
pub mod test_server;
mod tls;
mod topology;
mod tracking;
mod waiters;
mod wire;

pub use config::{Mode, ValkeyConfig};
pub use store::ValkeyStore;
