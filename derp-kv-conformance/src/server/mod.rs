//! Help for the harness of a store behind a server.

mod child_server;
mod ports;
mod proxy;
mod shared;

pub use child_server::ChildServer;
pub use proxy::Proxy;
pub use shared::{Shared, shared_runtime};
