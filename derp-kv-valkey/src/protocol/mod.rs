//! What is said to a server, and what its answers mean.

pub(crate) mod commands;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod glob;
mod parse;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod script;
pub(crate) mod shape;
pub(crate) mod steps;
pub(crate) mod verdict;
pub(crate) mod word;

/// A command, argument by argument.
pub(crate) type Args<'a> = &'a [&'a [u8]];
