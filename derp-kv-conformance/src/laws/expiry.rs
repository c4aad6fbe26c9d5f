mod calls;
mod deadlines;
mod handles;
mod large;
mod last_write;
mod moments;
mod renewal;
mod replaced;
mod timetable;

use std::ops::RangeInclusive;
use std::time::Duration;

use proptest::prelude::*;

use crate::bench::Bench;
use crate::resolution;

pub(crate) use deadlines::*;
pub(crate) use handles::*;
pub(crate) use last_write::*;
pub(crate) use moments::*;
pub(crate) use renewal::*;
pub(crate) use replaced::*;

fn millis(range: RangeInclusive<u64>) -> impl Strategy<Value = Duration> + Clone {
    range.prop_map(Duration::from_millis)
}

/// What `duration` is to a store of one millisecond, to one of the promised resolution.
fn in_units(duration: Duration) -> Duration {
    duration * u32::try_from(resolution::promised().as_millis()).unwrap_or(1)
}

/// TTLs that a case outlasts.
fn short_ttl(bench: &Bench<'_>) -> BoxedStrategy<Duration> {
    if bench.is_virtual() {
        prop_oneof![millis(1..=9), millis(1..=5_000), Just(Duration::from_secs(24 * 60 * 60))]
            .boxed()
    } else {
        millis(20..=60).boxed()
    }
}
