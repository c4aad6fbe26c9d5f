//! Rate limits.

pub(crate) mod decide;
pub(crate) mod fixed_window;
pub(crate) mod limit;
pub(crate) mod limiter;
pub(crate) mod local;
pub(crate) mod status;
pub(crate) mod without_store;
