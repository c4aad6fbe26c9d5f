//! A sliding window with a hard bound, as a pure function.
//!
//! Calls are counted in sub-windows. What passed within one counts until the whole window has gone by
//! since that sub-window ended, or since the last call if it came in this one: never shorter than a
//! window, and at most a sub-window longer. So no window of any position holds more than the limit.

use std::time::Duration;

use crate::error::Result;
use crate::store::expiry::Expiry;
use crate::store::step::ask::Ask;
use crate::store::step::change::Change;
use crate::store::step::limits::LimitsStep;
use crate::store::step::record::{MILLI, Record, Value, corrupt, in_millis, nanos};
use crate::store::step::standing::{MAX_LIMITS, Standing, Stepped};

/// The first byte of what such a step writes.
const KIND: u8 = b'W';

/// How many sub-windows a window has. Steady callers get about `60 / 61` of a limit that is not below
/// it, and more would be more to keep.
const SUB_WINDOWS: u64 = 60;

/// A [`Step`](crate::Step) of up to eight limits that are never exceeded in any window.
///
/// What it keeps of each limit, behind the head that is common to all steps: the length of its
/// sub-windows in milliseconds (6 bytes), how long ago the newest one began at the write, in
/// milliseconds (6) and nanoseconds (3), the sum of the counters (4), how many they are (1), and the
/// counters (4 each), the newest first. At least one is kept, and no more than there are sub-windows
/// that count; those that count no more are zeros.
///
/// A counter counts until the window has gone by since its sub-window ended, and none counts once the
/// window and a millisecond have gone by since the write, when the last call was. A call is admitted where for every limit
/// the sum of those and the cost is at most the limit. It counts in the sub-window of now; where none
/// is kept, or sub-windows had another length, a new one begins now, in which all that counts is
/// counted again.
pub type StrictStep = LimitsStep<StrictLimit>;

/// One limit of a [`StrictStep`], with what a call costs under it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StrictLimit {
    limit: u32,
    cost: u32,
    /// In milliseconds.
    window: u64,
    sub_window: u64,
}

/// How one limit stands: its counters, of which the newest is the first.
#[derive(Clone, Copy)]
struct Counters<'a> {
    /// Of the sub-windows, in nanoseconds.
    sub_window: u64,
    /// How long ago the newest one began, in nanoseconds.
    age: u64,
    sum: u64,
    /// What the newest counts beside what is in `older`.
    newest: u64,
    /// Empty sub-windows before `older`.
    empty: usize,
    /// The counters that were found and count still, 4 bytes each.
    older: &'a [u8],
    /// The place of the counter that holds the last call, and how long ago that was, in nanoseconds.
    latest: u64,
    written: u64,
    /// How long the store's clock stands still first, in nanoseconds.
    excess: u64,
    /// How many were found that count no more. They are kept as zeros while there is a place for
    /// them, so that a key in use holds a value of one length.
    gone: usize,
}

impl StrictLimit {
    /// `window` is in whole milliseconds.
    pub(crate) fn new(limit: u32, window: Duration, cost: u32) -> Self {
        let window = nanos(window) / MILLI;
        Self { limit, cost, window, sub_window: window.div_ceil(SUB_WINDOWS).max(1) }
    }

    /// What may pass in any window.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// What the call counts for.
    #[must_use]
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// The window, in whole milliseconds.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_millis(self.window)
    }

    /// The length of a sub-window, in whole milliseconds.
    #[must_use]
    pub fn sub_window(&self) -> Duration {
        Duration::from_millis(self.sub_window)
    }

    fn admits(&self, counters: &Counters<'_>) -> bool {
        counters.sum + u64::from(self.cost) <= u64::from(self.limit)
    }

    /// What counts still of what was found.
    fn read<'a>(&self, record: &mut Record<'a>) -> Result<Counters<'a>> {
        let sub_window = record.take::<6>()?.saturating_mul(MILLI);
        let age = record.take_time()?.saturating_add(record.age);
        let mut sum = record.take::<4>()?;
        let count = record.take::<1>()? as usize;
        let found = record.take_bytes(4 * count)?;
        if sub_window == 0 {
            return Err(corrupt());
        }
        if record.age >= self.lasts_from_write() {
            return Ok(self.none());
        }
        let left = self.lasts_from_begin(sub_window).saturating_sub(age);
        let live = usize::try_from(left.div_ceil(sub_window)).unwrap_or(count).min(count);
        let (older, left) = found.split_at(4 * live);
        for counter in counters(left) {
            sum = sum.saturating_sub(counter);
        }
        if live == 0 || sum == 0 {
            return Ok(self.none());
        }
        // The sub-window of now; those since the newest that was found are empty.
        let since = if sub_window == self.sub_window * MILLI { age / sub_window } else { 0 };
        let empty = usize::try_from(since).unwrap_or(0);
        let (age, gone) = (age - since * sub_window, count - live);
        let (latest, written, excess) = (since, record.age, record.excess);
        Ok(Counters {
            sub_window,
            age,
            sum,
            newest: 0,
            empty,
            older,
            latest,
            written,
            excess,
            gone,
        })
    }

    fn none(&self) -> Counters<'static> {
        let sub_window = self.sub_window * MILLI;
        Counters {
            sub_window,
            age: 0,
            sum: 0,
            newest: 0,
            empty: 0,
            older: &[],
            latest: 0,
            written: 0,
            excess: 0,
            gone: 0,
        }
    }

    /// How long the last call counts. A clock of whole milliseconds may show a window between two
    /// calls that are up to a millisecond closer than that.
    fn lasts_from_write(&self) -> u64 {
        (self.window + 1) * MILLI
    }

    /// How long a counter counts after its sub-window began; the one of the last call may end earlier.
    fn lasts_from_begin(&self, sub_window: u64) -> u64 {
        (self.window * MILLI).saturating_add(sub_window)
    }

    fn count<'a>(&self, counters: Counters<'a>) -> Counters<'a> {
        let cost = u64::from(self.cost);
        if counters.sub_window == self.sub_window * MILLI {
            let sum = counters.sum + cost;
            return Counters { sum, newest: cost, latest: 0, written: 0, excess: 0, ..counters };
        }
        // Counted with other sub-windows: all of it counts as of now.
        let all = counters.sum + cost;
        Counters { sum: all, newest: all, ..self.none() }
    }

    fn standing(&self, counters: &Counters<'_>, fits: bool) -> Standing {
        let limit = u64::from(self.limit);
        let remaining = limit.saturating_sub(counters.sum);
        let when = |enough: &dyn Fn(u64) -> bool| self.when(counters, enough);
        Standing {
            fits,
            count: counters.sum,
            remaining,
            retry_after: if fits {
                None
            } else {
                let room = limit.checked_sub(self.cost.into());
                room.and_then(|room| when(&|sum| sum <= room))
            },
            next_after: when(&|sum| limit.saturating_sub(sum) > remaining),
            reset_after: when(&|sum| sum == 0).unwrap_or_default(),
        }
    }

    /// When the oldest counters will have left that must leave for the sum to be `enough`.
    fn when(&self, counters: &Counters<'_>, enough: &dyn Fn(u64) -> bool) -> Option<Duration> {
        let mut sum = counters.sum;
        for (place, counter) in counters.oldest_first() {
            sum = sum.saturating_sub(counter);
            if enough(sum) {
                let began = counters.age.saturating_add(place * counters.sub_window);
                let left = self.lasts_from_begin(counters.sub_window).saturating_sub(began);
                let last = self.lasts_from_write().saturating_sub(counters.written);
                let is_latest = place == counters.latest;
                let left = if is_latest { left.min(last) } else { left };
                return Some(in_millis(left.saturating_add(counters.excess)));
            }
        }
        None
    }
}

impl<'a> Counters<'a> {
    /// The counters with their places, the newest sub-window being at 0.
    fn oldest_first(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let (empty, newest) = (self.empty as u64, self.newest);
        let len = (self.older.len() / 4) as u64;
        let places = (empty..empty + len).rev();
        let older = places.zip(counters(self.older).rev());
        // The newest may be among those that were found, and has then grown.
        older.chain((newest > 0).then_some((0, newest)))
    }

    /// Takes `cost` away from the oldest. They leave first, so nothing that was admitted and not
    /// given back is counted too little then.
    fn refunded(&self, cost: u64, into: &'a mut [u8]) -> Counters<'a> {
        let mut left = cost.min(self.sum);
        let sum = self.sum - left;
        let into = &mut into[..self.older.len()];
        into.copy_from_slice(self.older);
        for counter in into.chunks_exact_mut(4).rev() {
            let count = counters(counter).next().unwrap_or(0);
            let taken = count.min(left);
            left -= taken;
            counter.copy_from_slice(&u32::try_from(count - taken).unwrap_or(0).to_be_bytes());
        }
        Counters { sum, older: into, latest: 0, written: 0, excess: 0, ..*self }
    }

    /// `lasts` is how long a counter counts after its sub-window began.
    fn write(&self, lasts: u64, value: &mut Value) {
        value.push::<6>(self.sub_window / MILLI);
        value.push_time(self.age);
        value.push::<4>(self.sum);
        let older = counters(self.older);
        let places = usize::try_from(lasts.div_ceil(self.sub_window)).unwrap_or(usize::MAX);
        let len = (self.empty + older.len() + self.gone).clamp(1, places.max(1));
        value.push::<1>(len as u64);
        let found = std::iter::repeat_n(0, self.empty).chain(older).chain(std::iter::repeat(0));
        for (place, counter) in found.take(len).enumerate() {
            value.push::<4>(if place == 0 { counter + self.newest } else { counter });
        }
    }
}

fn counters(bytes: &[u8]) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + use<'_> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    bytes.chunks_exact(4).map(number)
}

impl StrictStep {
    pub(crate) fn apply(&self, seen: Option<(&[u8], Expiry)>) -> Result<(Change, Stepped)> {
        let limits = self.limits();
        let mut found: [Counters<'_>; MAX_LIMITS] = self.places().map(|limit| limit.none());
        if let Some(mut record) = Record::read(KIND, seen)? {
            for (found, limit) in found.iter_mut().zip(limits) {
                if record.is_empty() {
                    break;
                }
                *found = limit.read(&mut record)?;
            }
        }
        let each = || limits.iter().zip(&found);
        let fits = |(limit, counters): (&StrictLimit, &Counters<'_>)| limit.admits(counters);
        match self.ask() {
            Ask::Admit if each().all(fits) => {
                let mut after = found;
                for (after, limit) in after.iter_mut().zip(limits) {
                    *after = limit.count(*after);
                }
                Ok((self.set(&after), self.stands(&after)))
            }
            Ask::Refund => Ok(self.refund(&found, seen.is_some())),
            Ask::Admit | Ask::Peek => {
                let standings =
                    each().map(|(limit, found)| limit.standing(found, limit.admits(found)));
                Ok((Change::Keep, Stepped::new(each().all(fits), standings)))
            }
        }
    }

    /// In a function of its own, because its room would else be part of every call's stack.
    #[inline(never)]
    fn refund(&self, found: &[Counters<'_>; MAX_LIMITS], is_held: bool) -> (Change, Stepped) {
        let mut room = [[0; 4 * u8::MAX as usize]; MAX_LIMITS];
        let mut after = *found;
        for ((after, room), limit) in after.iter_mut().zip(&mut room).zip(self.limits()) {
            *after = after.refunded(limit.cost.into(), room);
        }
        let change = match (is_held, after.iter().any(|after| after.sum > 0)) {
            (false, _) => Change::Keep,
            (true, true) => self.set(&after),
            (true, false) => Change::Delete,
        };
        (change, self.stands(&after))
    }

    fn stands(&self, after: &[Counters<'_>]) -> Stepped {
        let standings = self.limits().iter().zip(after);
        Stepped::new(true, standings.map(|(limit, after)| limit.standing(after, true)))
    }

    fn set(&self, after: &[Counters<'_>; MAX_LIMITS]) -> Change {
        let each = || self.limits().iter().zip(after);
        let counting = each().filter(|(_, after)| after.sum > 0);
        let ttl = counting.map(|(limit, _)| limit.lasts_from_write() / MILLI).max().unwrap_or(1);
        let mut value = Value::new(KIND, self.number(), ttl);
        for (limit, after) in each() {
            after.write(limit.lasts_from_begin(after.sub_window), &mut value);
        }
        Change::Set { value, ttl: Duration::from_millis(ttl) }
    }
}
