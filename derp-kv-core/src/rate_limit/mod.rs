//! Rate limits.

pub(crate) mod fixed_window;
