//! Who does the work: leases between processes, and what must go on when its caller goes away.

pub(crate) mod claim;
pub(crate) mod keys;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod run_to_end;
pub(crate) mod write_once;
