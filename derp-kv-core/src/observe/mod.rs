//! What the helpers do, for who watches: events for an observer, and spans for `tracing`.

pub(crate) mod call;
pub(crate) mod call_outcome;
pub(crate) mod decided_by;
pub(crate) mod event;
pub(crate) mod link_state;
pub(crate) mod observer;
pub(crate) mod raised;
#[cfg(feature = "tracing")]
pub(crate) mod span;
#[cfg(not(feature = "tracing"))]
#[path = "no_span.rs"]
pub(crate) mod span;
pub(crate) mod tell;
