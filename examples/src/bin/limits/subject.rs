//! The limits that are compared: those of the library on a `MemoryStore`, and models of others.

use std::time::Duration;

use derp_kv_core::RateLimit;

/// The length of a window, in nanoseconds, and as a duration.
pub(crate) const WINDOW: u64 = 1_000_000_000;
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MILLI: u64 = 1_000_000;
/// How many calls a window is to have.
pub(crate) const LIMIT: u64 = 100;

pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) limit: u64,
    pub(crate) kind: Kind,
    /// What it promises for any window of so many nanoseconds, rounded down.
    pub(crate) at_most: fn(u64) -> u64,
    /// Which part of the limit it promises to steady callers.
    pub(crate) steady: Option<f64>,
    /// Whether the worst arrivals are looked for: with a high rate that would take long.
    pub(crate) searched: bool,
    /// Whether it is in the picture.
    pub(crate) drawn: bool,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Ours(Box<RateLimit>),
    SlidingCounter,
    SlidingLog,
    TokenBucket,
}

const SMALL_BURST: &str = "`smooth`, a burst of 10";
/// It would be drawn over by `smooth`, which is the same in other words.
const TOKEN_BUCKET: &str = "others: token bucket";
const STEADY: Option<f64> = Some(0.97);

/// Of a smooth limit: `burst + (t + 1 ms) / T`.
const fn smooth(burst: u64, time: u64) -> u64 {
    burst + (time + MILLI) / (WINDOW / LIMIT)
}

pub(crate) fn all() -> Vec<Subject> {
    let subject = |name, kind, at_most, steady| Subject {
        name,
        limit: LIMIT,
        kind,
        at_most,
        steady,
        searched: true,
        drawn: !matches!(name, SMALL_BURST | TOKEN_BUCKET),
    };
    let ours = |limit| Kind::Ours(Box::new(limit));
    let all = RateLimit::smooth(LIMIT, SECOND);
    let some = RateLimit::smooth(LIMIT, SECOND).burst(LIMIT / 10);
    let fast = RateLimit::smooth(5_000, SECOND).burst(10);
    vec![
        subject("`new`, a fixed window", ours(RateLimit::new(LIMIT, SECOND)), |_| 2 * LIMIT, None),
        subject("`smooth`", ours(all), |time| smooth(LIMIT, time), STEADY),
        subject(SMALL_BURST, ours(some), |time| smooth(LIMIT / 10, time), STEADY),
        subject("`strict`", ours(RateLimit::strict(LIMIT, SECOND)), |_| LIMIT, STEADY),
        Subject {
            name: "`smooth`, 5,000 a second, a burst of 10",
            limit: 5_000,
            kind: ours(fast),
            // A unit takes less than a millisecond: one more tick.
            at_most: |time| 10 + (time + 2 * MILLI) / (WINDOW / 5_000),
            steady: STEADY,
            searched: false,
            drawn: false,
        },
        subject("others: sliding counter", Kind::SlidingCounter, |_| 2 * LIMIT, None),
        subject(TOKEN_BUCKET, Kind::TokenBucket, |time| smooth(LIMIT, time), None),
        subject("others: sliding log", Kind::SlidingLog, |_| LIMIT, None),
    ]
}
