//! The resolution of TTLs that the store under test promises.
//!
//! Every law asks for what was promised, down to the helper functions that compare one expiry. Each
//! law has threads of its own, so the promise stands on them, and no function has to hand it on.

use std::cell::Cell;
use std::time::Duration;

/// What a store promises that declares nothing.
pub(crate) const FINEST: Duration = Duration::from_millis(1);

/// A coarser one is a mistake: no lease and no window of a reasonable length would be kept.
pub(crate) const COARSEST: Duration = Duration::from_secs(60);

/// A lock TTL of a second serves for resolutions up to this one: whether it was renewed is told by a
/// deadline that has moved by a third of it.
const UNSTRETCHED: Duration = Duration::from_millis(125);

thread_local! {
    static PROMISED: Cell<Duration> = const { Cell::new(FINEST) };
}

/// From here on, the laws on this thread ask for no more than `resolution`.
pub(crate) fn promise(resolution: Duration) {
    PROMISED.set(resolution);
}

/// The resolution that the laws on this thread ask for.
pub(crate) fn promised() -> Duration {
    PROMISED.get()
}

/// How much later than its TTL a key may end. A store that declares nothing is held to its TTLs to
/// the letter.
pub(crate) fn lateness() -> Duration {
    let resolution = promised();
    if resolution > FINEST { resolution } else { Duration::ZERO }
}

/// The most that may be reported as left of `ttl`, which is of whole milliseconds.
pub(crate) fn most_left(ttl: Duration) -> Duration {
    let resolution = promised();
    if resolution <= FINEST {
        return ttl;
    }
    let units = ttl.as_nanos().div_ceil(resolution.as_nanos());
    let rounded = u64::try_from(units * resolution.as_nanos()).map_or(ttl, Duration::from_nanos);
    rounded + resolution
}

/// How many times longer than for a store that declares nothing it takes to wait for leases.
pub(crate) fn stretch() -> u32 {
    stretch_of(promised())
}

/// [`stretch`], for a store that promises `resolution`.
pub(crate) fn stretch_of(resolution: Duration) -> u32 {
    let factor = resolution.as_nanos().div_ceil(UNSTRETCHED.as_nanos());
    u32::try_from(factor).unwrap_or(1).max(1)
}
