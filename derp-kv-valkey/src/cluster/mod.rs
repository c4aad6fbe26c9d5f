//! Which node serves a key, and how a call reaches it.

pub(crate) mod discovery;
pub(crate) mod ownership;
pub(crate) mod router;
pub(crate) mod slots;
pub(crate) mod stats;
pub(crate) mod topology;
pub(crate) mod view;
