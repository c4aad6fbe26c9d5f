//! One server: its connection, how it is opened, and how it heals.

pub(crate) mod dial;
pub(crate) mod failure;
pub(crate) mod hello;
pub(crate) mod link;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod waiters;
pub(crate) mod wire;
