//! Work that is done once: idempotency keys and webhooks.

pub(crate) mod dedup;
pub(crate) mod idempotency;
pub(crate) mod options;
pub(crate) mod record;
mod shape;
