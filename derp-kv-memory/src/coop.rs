//! How the operations take part in tokio's cooperative scheduling.
//!
//! No operation of this store ever waits, so a loop of them would never give its thread back: no
//! timer would fire, no lease would be renewed, and the task that the loop waits for would not
//! run. Each operation therefore takes a unit of the budget that tokio gives a task for each poll,
//! as tokio's own channels do, and lets the other tasks run where the budget is used up. Outside of
//! a tokio runtime there is no budget, and nothing waits.
//!
//! The budget is taken before an operation begins: one that is dropped while it waits has done
//! nothing, and one that began is done within the same poll.

use std::future::poll_fn;

use tokio::task::coop::poll_proceed;

/// So many keys of a batch or a scan cost about as much as one operation on a single key, which has
/// its future allocated beside.
const KEYS_PER_UNIT: usize = 16;

/// The units of a large batch: all that tokio gives a task at once. More would only wait more often
/// for the same piece of work.
const MOST_UNITS: usize = 128;

/// Takes the unit of an operation on one key.
pub(crate) async fn one_key() {
    poll_fn(|context| poll_proceed(context).map(|taken| taken.made_progress())).await;
}

/// Takes the units of a piece of work on so many keys.
pub(crate) async fn keys(count: usize) {
    for _ in 0..count.div_ceil(KEYS_PER_UNIT).clamp(1, MOST_UNITS) {
        one_key().await;
    }
}
