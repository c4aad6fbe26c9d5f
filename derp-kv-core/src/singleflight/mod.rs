//! What concurrent callers of one key share within a process.

pub(crate) mod flights;
