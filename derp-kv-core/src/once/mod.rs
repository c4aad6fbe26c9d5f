//! Work that is done once: idempotency keys and webhooks.

pub(crate) mod dedup;
pub(crate) mod idempotency;
