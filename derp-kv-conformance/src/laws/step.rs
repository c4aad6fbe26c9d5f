//! What [`KvStore::step`](derp_kv_core::KvStore::step) promises: that it is the core's function.

mod agrees;
mod atomic;
mod denial;
mod match_at;
mod times;

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Expiry, RateLimit, Step};
use proptest::collection::vec;
use proptest::prelude::*;

pub(crate) use agrees::agrees_with_the_core;
pub(crate) use atomic::is_atomic;
pub(crate) use denial::denial_writes_nothing;

/// What a look shows of a key.
type Held = Option<(Bytes, Expiry)>;

/// The bytes of a look, as a step is given them.
fn seen(held: &Held) -> Option<(&[u8], Expiry)> {
    held.as_ref().map(|(value, expiry)| (&value[..], *expiry))
}

/// The number of the write, which is the same for both kinds.
fn nonce(step: &Step) -> Option<[u8; 8]> {
    match step {
        Step::Smooth(step) => Some(step.nonce()),
        Step::Strict(step) => Some(step.nonce()),
        _ => None,
    }
}

/// Limits that pass and deny, of one kind, whose periods have so many milliseconds.
fn limits(periods: RangeInclusive<u64>) -> impl Strategy<Value = RateLimit> + Clone {
    let one = (1_u64..8, periods, 1_u64..8, 1_u64..4);
    (any::<bool>(), vec(one, 1..=8)).prop_map(|(smooth, limits)| {
        RateLimit::all(limits.into_iter().map(|(limit, period, burst, cost)| {
            let period = Duration::from_millis(period);
            if smooth {
                RateLimit::smooth(limit, period).burst(burst).cost(cost.min(burst))
            } else {
                RateLimit::strict(limit, period).cost(cost.min(limit))
            }
        }))
    })
}
