//! The generic cell rate algorithm (GCRA, ITU-T I.371) as a pure function.
//!
//! Each unit takes the time that it is paid for in, `T = period / limit`, rounded up. A limit owes the time of
//! all units that it let pass, less the time that has gone by since, and lets a call pass while it
//! owes at most `burst * T` after it.

use std::time::Duration;

use crate::error::Result;
use crate::store::expiry::Expiry;
use crate::store::step::ask::Ask;
use crate::store::step::change::Change;
use crate::store::step::limits::LimitsStep;
use crate::store::step::record::{MILLI, Record, Value, corrupt, in_millis, nanos};
use crate::store::step::standing::{MAX_LIMITS, Standing, Stepped};
use crate::store::ttl::MAX_TTL;

/// The first byte of what such a step writes.
const KIND: u8 = b'G';

/// A [`Step`](crate::Step) of up to eight limits that let calls pass evenly.
///
/// What it keeps of each limit, behind the head that is common to all steps: 9 bytes, what is owed, in
/// milliseconds (6 bytes) and nanoseconds (3 bytes), and at most [`MAX_TTL`](crate::MAX_TTL).
///
/// What a limit owes now is what is kept, or its tolerance where that is less, minus the time since the
/// write, and 0 at the least. A call is admitted where for every limit that and the increment are at
/// most the tolerance. What is kept then is what was kept, minus that time, plus the increment.
pub type SmoothStep = LimitsStep<SmoothLimit>;

/// One limit of a [`SmoothStep`], with what a call costs under it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmoothLimit {
    burst: u64,
    /// What a unit costs, in nanoseconds.
    unit: u64,
    /// What the call costs, in nanoseconds.
    increment: u64,
    /// What the limit may owe, in nanoseconds.
    tolerance: u64,
}

impl SmoothLimit {
    /// `limit` and `burst` are above zero. `None` where the burst takes longer than any TTL.
    pub(crate) fn new(
        limit: u64,
        period: Duration,
        burst: u64,
        cost: u64,
        longest: Duration,
    ) -> Option<Self> {
        let unit = nanos(period).div_ceil(limit);
        // A store's clock may have whole milliseconds only. Where a unit takes less than one, a
        // burst of few units would be filled between two ticks: the limit may owe a tick more.
        let tick = if nanos(period) / limit < MILLI { MILLI } else { 0 };
        let tolerance = unit.saturating_mul(burst).saturating_add(tick);
        let fits = tolerance <= nanos(longest);
        fits.then_some(Self { burst, unit, increment: unit.saturating_mul(cost), tolerance })
    }

    /// What a call costs: the part of the period that each of its units is paid for in, rounded up to
    /// a nanosecond.
    #[must_use]
    pub fn increment(&self) -> Duration {
        Duration::from_nanos(self.increment)
    }

    /// What the limit may owe.
    #[must_use]
    pub fn tolerance(&self) -> Duration {
        Duration::from_nanos(self.tolerance)
    }

    fn admits(&self, owed: u64) -> bool {
        owed.saturating_add(self.increment) <= self.tolerance
    }

    fn standing(&self, owed: Owed, fits: bool, excess: u64) -> Standing {
        let owed = owed.of(self);
        let free = self.tolerance.saturating_sub(owed);
        let remaining = (free / self.unit).min(self.burst);
        let in_time = |time: u64| in_millis(time.saturating_add(if time > 0 { excess } else { 0 }));
        // When the limit will owe so much less than it may, if ever.
        let free_for = |time: u64| {
            let most = self.tolerance.checked_sub(time)?;
            Some(in_time(owed.saturating_sub(most)))
        };
        let next = || free_for(self.unit.saturating_mul(remaining + 1));
        Standing {
            fits,
            count: self.burst - remaining,
            remaining,
            retry_after: if fits { None } else { free_for(self.increment) },
            next_after: if remaining < self.burst { next() } else { None },
            reset_after: in_time(owed),
        }
    }
}

/// What was owed at the write, and how much of that has been paid since, in nanoseconds.
///
/// Where a limit was lowered, more may be owed than it tolerates. It counts its tolerance alone then,
/// and so lets calls pass at its own rate at once, with a burst once the rest is paid, too. All of it
/// is kept: another process may have the higher limit still, and must not find what it let pass
/// forgotten.
#[derive(Clone, Copy, Default)]
struct Owed {
    written: u64,
    paid: u64,
}

impl Owed {
    fn of(self, limit: &SmoothLimit) -> u64 {
        self.written.min(limit.tolerance).saturating_sub(self.paid)
    }

    /// The same with a call of the limit counted or given back.
    fn after(self, limit: &SmoothLimit, change: fn(u64, u64) -> u64) -> Self {
        let left = self.written.saturating_sub(self.paid);
        Self { written: change(left, limit.increment).min(LONGEST), paid: 0 }
    }
}

/// No key lasts longer, in nanoseconds.
const LONGEST: u64 = MAX_TTL.as_secs() * 1_000 * MILLI;

impl SmoothStep {
    pub(crate) fn apply(&self, seen: Option<(&[u8], Expiry)>) -> Result<(Change, Stepped)> {
        let (found, excess) = self.owed(seen)?;
        let limits = self.limits();
        let fits = |(limit, owed): (&SmoothLimit, Owed)| limit.admits(owed.of(limit));
        let all_fit = limits.iter().zip(found).all(fits);
        let after = |change: fn(u64, u64) -> u64| {
            let mut after = found;
            for (owed, limit) in after.iter_mut().zip(limits) {
                *owed = owed.after(limit, change);
            }
            let standings = limits.iter().zip(after);
            let standings = standings.map(|(limit, owed)| limit.standing(owed, true, 0));
            (after, Stepped::new(true, standings))
        };
        match self.ask() {
            Ask::Admit if all_fit => {
                let (owed, stepped) = after(u64::saturating_add);
                Ok((self.set(owed), stepped))
            }
            Ask::Refund => {
                let (owed, stepped) = after(u64::saturating_sub);
                let change = match (seen, owed.iter().any(|owed| owed.written > 0)) {
                    (None, _) => Change::Keep,
                    (Some(_), true) => self.set(owed),
                    (Some(_), false) => Change::Delete,
                };
                Ok((change, stepped))
            }
            Ask::Admit | Ask::Peek => {
                let stands = |(limit, owed): (&SmoothLimit, Owed)| {
                    limit.standing(owed, limit.admits(owed.of(limit)), excess)
                };
                let standings = limits.iter().zip(found).map(stands);
                Ok((Change::Keep, Stepped::new(all_fit, standings)))
            }
        }
    }

    /// What each limit owes. A limit that was not there at the last write owes nothing.
    fn owed(&self, seen: Option<(&[u8], Expiry)>) -> Result<([Owed; MAX_LIMITS], u64)> {
        let mut owed = [Owed::default(); MAX_LIMITS];
        let Some(mut record) = Record::read(KIND, seen)? else { return Ok((owed, 0)) };
        for owed in owed.iter_mut().take(self.limits().len()) {
            if record.is_empty() {
                break;
            }
            *owed = Owed { written: record.take_time()?.min(LONGEST), paid: record.age };
        }
        match record.rest.len() % 9 {
            0 => Ok((owed, record.excess)),
            _ => Err(corrupt()),
        }
    }

    fn set(&self, owed: [Owed; MAX_LIMITS]) -> Change {
        let owed = &owed[..self.limits().len()];
        let longest = owed.iter().map(|owed| owed.written).max().unwrap_or(1);
        let ttl = longest.div_ceil(MILLI).max(1);
        let mut value = Value::new(KIND, self.number(), ttl);
        for owed in owed {
            value.push_time(owed.written);
        }
        Change::Set { value, ttl: Duration::from_millis(ttl) }
    }
}
