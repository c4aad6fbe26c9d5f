//! Webhooks, which senders deliver more than once.

mod event;
mod receive;
pub mod senders;

pub(crate) use receive::receive;
