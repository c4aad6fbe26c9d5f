//! The times in the value of a strict limit, as the documentation of the core lays it out.

/// Nanoseconds in a millisecond.
pub(super) const MILLI: u64 = 1_000_000;

/// What a value tells of time, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// The TTL that the write gave the key.
    pub(super) ttl: u64,
    pub(super) ages: Vec<Age>,
}

/// How old the newest sub-window of a limit was at the write.
#[derive(Debug)]
pub(super) struct Age {
    pub(super) sub_window: u64,
    pub(super) age: u64,
}

impl Times {
    pub(super) fn read(value: &[u8]) -> Self {
        let number = |at: usize, len: usize| {
            let bytes = value.get(at..at + len)?;
            Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let mut times = Self { ttl: number(9, 6).unwrap_or(0) * MILLI, ages: Vec::new() };
        let mut at = 15;
        while let (Some(sub_window), Some(millis), Some(nanos), Some(counters)) =
            (number(at, 6), number(at + 6, 6), number(at + 12, 3), number(at + 19, 1))
        {
            let age = millis.saturating_mul(MILLI).saturating_add(nanos);
            times.ages.push(Age { sub_window: sub_window.saturating_mul(MILLI), age });
            at += 20 + 4 * usize::try_from(counters).unwrap_or(0);
        }
        times
    }
}
