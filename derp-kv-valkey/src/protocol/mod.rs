//! What is said to a server, and what its answers mean.

pub(crate) mod commands;
pub(crate) mod glob;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod script;
