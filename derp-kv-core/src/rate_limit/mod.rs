//! Rate limits.

pub(crate) mod fixed_window;
pub(crate) mod limit;
pub(crate) mod status;
