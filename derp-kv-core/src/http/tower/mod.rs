//! The helpers as layers around any tower service over `http::Request`.

pub(crate) mod body;
pub(crate) mod by_extension;
pub(crate) mod by_header;
pub(crate) mod by_peer;
pub(crate) mod client_id;
mod detached;
mod fingerprint;
pub(crate) mod forwarded;
mod guard;
pub(crate) mod idempotency;
mod idempotency_key;
mod kept_answer;
mod kept_headers;
pub(crate) mod nothing_done;
pub(crate) mod rate_limit;
mod record_id;
pub(crate) mod refusal;
pub(crate) mod request_body;
