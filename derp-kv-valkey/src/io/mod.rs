//! What runs in the background, and when it tries again.

pub(crate) mod backoff;
pub(crate) mod task;
