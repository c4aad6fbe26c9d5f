//! Work that is done once: idempotency keys and webhooks.

pub(crate) mod answer;
pub(crate) mod attempts;
mod base64;
pub(crate) mod dedup;
pub(crate) mod id;
pub(crate) mod idempotency;
pub(crate) mod options;
pub(crate) mod record;
pub(crate) mod reply;
mod shape;
