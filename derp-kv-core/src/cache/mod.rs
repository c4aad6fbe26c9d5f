//! The cache that does not stampede.

pub(crate) mod background;
pub(crate) mod codec;
pub(crate) mod duty;
pub(crate) mod fill;
pub(crate) mod freshness;
pub(crate) mod get;
pub(crate) mod guarded_get;
pub(crate) mod handle;
pub(crate) mod invalidate;
pub(crate) mod lookup;
pub(crate) mod many;
pub(crate) mod options;
pub(crate) mod refresh;
pub(crate) mod rest;
pub(crate) mod tell;
pub(crate) mod typed;
