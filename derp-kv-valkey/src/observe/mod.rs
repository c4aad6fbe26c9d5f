//! What is seen of the commands that are sent for callers: spans for `tracing`.

#[cfg(feature = "tracing")]
pub(crate) mod span;
#[cfg(not(feature = "tracing"))]
#[path = "no_span.rs"]
pub(crate) mod span;
