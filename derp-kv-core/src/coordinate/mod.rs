//! Who does the work: leases between processes, and what must go on when its caller goes away.

pub(crate) mod claim;
pub(crate) mod contention;
pub(crate) mod cooldown;
pub(crate) mod entry;
pub(crate) mod keys;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod nesting;
pub(crate) mod nonce;
pub(crate) mod renewal;
pub(crate) mod run_to_end;
pub(crate) mod token;
pub(crate) mod work;
pub(crate) mod write_once;
