//! One server: its connection, how it is opened, and how it heals.

pub(crate) mod connection;
pub(crate) mod dial;
mod driver;
pub(crate) mod failure;
mod health;
pub(crate) mod hello;
pub(crate) mod identity;
pub(crate) mod link;
mod news;
pub(crate) mod open;
mod queue;
pub(crate) mod resolve;
pub(crate) mod stats;
mod supervisor;
pub(crate) mod tls;
mod transport;
pub(crate) mod waiters;
