//! What callers of one key may count on while computations stall, hang or nest, and callers give up.

mod clones;
mod stall;
mod waits;

use std::time::Duration;

pub(crate) use clones::*;
pub(crate) use stall::*;
pub(crate) use waits::*;

/// A third of it, after which a lease is renewed, is longer than a loaded machine keeps a task
/// waiting.
const LOCK: Duration = Duration::from_secs(1);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
