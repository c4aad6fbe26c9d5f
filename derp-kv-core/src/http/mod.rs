//! What the helpers' answers look like in HTTP, and with the feature `tower` the layers that give them.

pub(crate) mod headers;
pub(crate) mod problem;
#[cfg(feature = "tower")]
pub(crate) mod tower;
