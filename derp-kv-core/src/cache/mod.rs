//! The cache that does not stampede.

pub(crate) mod guarded_get;
pub(crate) mod invalidate;
pub(crate) mod options;
