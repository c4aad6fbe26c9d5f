//! Operations that are more than one request.

pub(crate) mod batch;
pub(crate) mod command;
pub(crate) mod scan;
pub(crate) mod tracking;
