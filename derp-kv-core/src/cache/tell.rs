//! What the cache's calls are named, and what they came to.

use crate::cache::freshness::{Freshness, Got, Source};
use crate::observe::call::Call;
use crate::observe::call_outcome::CallOutcome;
use crate::operation::Operation;

/// The name of a call that asks for a value, in errors and events.
pub(crate) const OPERATION: Operation = Operation::GuardedGet;

/// The answer of a call, of which whoever watches has been told.
pub(crate) fn told<T>(call: Call<'_>, got: Got<T>) -> Got<T> {
    call.ended(outcome(&got));
    got
}

/// What a call came to that got a value.
pub(crate) fn outcome<T>(got: &Got<T>) -> CallOutcome {
    match (got.source, got.freshness) {
        (Source::Computed, _) => CallOutcome::Computed,
        (_, Freshness::Stale { .. }) => CallOutcome::Stale,
        (Source::Joined, Freshness::Fresh) => CallOutcome::Joined,
        (Source::Store, Freshness::Fresh) => CallOutcome::Hit,
    }
}
