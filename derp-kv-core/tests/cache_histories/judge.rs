//! Whether a history keeps to the contract.

use std::ops::AddAssign;
use std::time::Duration;

use derp_kv_core::{ErrorKind, Freshness, Source};

use crate::log::{Answer, Computation, Log, Write};
use crate::plan::{Outcome, Plan, What};

/// What all histories together came to: a check that never has a case proves nothing.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    computations: u64,
    answers: u64,
    stale: u64,
    joined: u64,
    errors: u64,
    /// Answers that came after a write of their key.
    after_writes: u64,
    /// Computations beside another one.
    beside: u64,
    cool_downs: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.computations += other.computations;
        self.answers += other.answers;
        self.stale += other.stale;
        self.joined += other.joined;
        self.errors += other.errors;
        self.after_writes += other.after_writes;
        self.beside += other.beside;
        self.cool_downs += other.cool_downs;
    }
}

pub(crate) fn judge(plan: &Plan, log: &Log, tally: &mut Tally) -> Result<(), String> {
    judged(plan, log, tally).map_err(|what| format!("{what}\n{}", log.story()))
}

fn judged(plan: &Plan, log: &Log, tally: &mut Tally) -> Result<(), String> {
    let judge = Judge { plan, log };
    tally.computations += log.computations.len() as u64;
    tally.errors += log.errors.len() as u64;
    for answer in &log.answers {
        judge.is_young_enough(answer, tally)?;
        if !plan.has_faults() {
            judge.is_of_now(answer, tally)?;
        }
    }
    for refusal in &log.errors {
        let kind = refusal.error.kind();
        let computes = !matches!(refusal.what, What::Put | What::Invalidate);
        let known = match kind {
            ErrorKind::Backend | ErrorKind::Failing | ErrorKind::Abandoned => computes,
            ErrorKind::Unavailable | ErrorKind::Timeout => plan.has_faults(),
            _ => false,
        };
        if !known {
            return Err(format!("a caller of {:?} hears {:?}", refusal.what, refusal.error));
        }
    }
    if !plan.has_faults() {
        for computation in log.computations.iter().filter(|computation| !computation.put) {
            judge.is_alone(computation, tally)?;
            judge.is_not_repeated(computation, tally)?;
        }
    }
    Ok(())
}

struct Judge<'a> {
    plan: &'a Plan,
    log: &'a Log,
}

impl Judge<'_> {
    fn value_of(&self, answer: &Answer) -> Result<&Computation, String> {
        let computation = self.log.computations.get(answer.value as usize);
        let same = computation.filter(|computation| computation.key == answer.key);
        same.ok_or_else(|| format!("nobody computed {answer:?}"))
    }

    /// From the end of a computation until its value is stored, read and answered.
    fn slack(&self) -> Duration {
        self.plan.round_trip() * 6
    }

    fn is_young_enough(&self, answer: &Answer, tally: &mut Tally) -> Result<(), String> {
        tally.answers += 1;
        let value = self.value_of(answer)?;
        // A put that was dropped or failed may have been done.
        let ended = value.ended.ok_or_else(|| format!("{answer:?} has not been computed yet"))?;
        let ttl = match value.outcome {
            Some(Outcome::ValueFor(ttl)) => ttl,
            Some(Outcome::Unstored) => Duration::ZERO,
            Some(Outcome::Value) => self.plan.ttl,
            None if value.put => self.plan.ttl,
            _ => return Err(format!("{answer:?} comes of {value:?}")),
        };
        let kept = if ttl.is_zero() { ttl } else { ttl + self.plan.stale.unwrap_or_default() };
        let age = answer.had_at().saturating_sub(ended);
        if age > kept + self.slack() {
            return Err(format!("{answer:?} is {age:?} old, of {kept:?}"));
        }
        let Some((freshness, source)) = answer.how else { return Ok(()) };
        tally.joined += u64::from(source == Source::Joined);
        match freshness {
            Freshness::Stale { past, .. } => {
                tally.stale += 1;
                // Jitter may end a TTL earlier, and nothing later.
                let least = age.saturating_sub(ttl + self.slack());
                if past < least || self.plan.stale.is_none_or(|stale| past > stale) {
                    return Err(format!("{answer:?} says that it is {past:?} past, not {least:?}"));
                }
            }
            _ if age > ttl + self.slack() => {
                return Err(format!("{answer:?} is called fresh and {age:?} old, of {ttl:?}"));
            }
            _ => {}
        }
        Ok(())
    }

    /// No value from before a write that had ended before its reader asked.
    fn is_of_now(&self, answer: &Answer, tally: &mut Tally) -> Result<(), String> {
        let value = self.value_of(answer)?;
        let ended = value.ended.unwrap_or(answer.answered);
        for write in self.writes_of(answer.key).filter(|write| write.done) {
            if answer.asked <= write.ended + self.slack() {
                continue;
            }
            tally.after_writes += 1;
            // Of two values that were put at the same time, either may be the last.
            let before = if value.put { ended < write.began } else { value.began < write.began };
            // What is stored although its lock is gone is taken back at once.
            let at_once = answer.had_at() <= ended + self.slack();
            if before && !at_once && write.value != Some(answer.value) {
                return Err(format!("{answer:?} is {value:?}, of before {write:?}"));
            }
        }
        Ok(())
    }

    fn writes_of(&self, key: usize) -> impl Iterator<Item = &Write> {
        self.log.writes.iter().filter(move |write| write.key == key)
    }

    /// Whether a write may have deleted the lock of a computation in this time.
    fn is_unlocked(&self, key: usize, from: Duration, to: Duration) -> bool {
        let slack = self.slack();
        self.writes_of(key).any(|write| write.began <= to + slack && write.ended + slack >= from)
    }

    fn computations_of(&self, key: usize) -> impl Iterator<Item = &Computation> {
        self.log.computations.iter().filter(move |other| other.key == key && !other.put)
    }

    /// Whether it runs at this moment, and has not been given up as one that hangs.
    fn runs_at(&self, computation: &Computation, moment: Duration) -> bool {
        computation.began < moment
            && computation.ended.is_none_or(|ended| ended > moment)
            && moment < computation.began + self.plan.lock_ttl * 10
    }

    /// Computations of a key overlap after `lock_ttl` only.
    fn is_alone(&self, computation: &Computation, tally: &mut Tally) -> Result<(), String> {
        let (key, began) = (computation.key, computation.began);
        let Some(other) = self.computations_of(key).find(|other| self.runs_at(other, began)) else {
            return Ok(());
        };
        tally.beside += 1;
        // A lease is handed over from one to the next, also one that a write has taken from them.
        let since = self.busy_since(key, began);
        // The lock is taken before, for many keys as long before as the last of them takes.
        let outwaited = began - since + self.slack() >= self.plan.lock_ttl;
        if outwaited || self.is_unlocked(key, since, began) {
            return Ok(());
        }
        Err(format!("{computation:?} overlaps with {other:?}"))
    }

    /// Since when one computation went on after the other until this moment.
    fn busy_since(&self, key: usize, moment: Duration) -> Duration {
        let gap = self.plan.retry_delay + self.slack();
        let mut since = moment;
        while let Some(earlier) = self
            .computations_of(key)
            .filter(|other| other.began < since)
            .filter(|other| other.ended.is_none_or(|ended| ended + gap >= since))
            .map(|other| other.began)
            .min()
        {
            since = earlier;
        }
        since
    }

    /// After a computation under the lock that failed there is none for the back-off.
    fn is_not_repeated(&self, failed: &Computation, tally: &mut Tally) -> Result<(), String> {
        let (Some(backoff), Some(ended)) = (self.plan.backoff, failed.ended) else { return Ok(()) };
        let slack = self.slack();
        // One that ends just then may have let this one begin beside it.
        let beside = self.computations_of(failed.key).any(|other| {
            let ended = other.ended.is_some_and(|ended| ended + slack < failed.began);
            other.began < failed.began && !ended
        });
        let given_up = ended >= failed.began + self.plan.lock_ttl * 10;
        if failed.outcome != Some(Outcome::Fails) || failed.together || beside || given_up {
            return Ok(());
        }
        tally.cool_downs += 1;
        let cools = |moment: Duration| moment > ended + slack && moment + slack < ended + backoff;
        let again = self.computations_of(failed.key).find(|other| {
            cools(other.began)
                && !self.is_unlocked(failed.key, failed.began, other.began)
                && !self.goes_on_beside(failed.key, ended, other)
        });
        match again {
            Some(again) => Err(format!("{again:?} comes in the cool-down of {failed:?}")),
            None => Ok(()),
        }
    }

    /// Whether a computation takes the place of one that ran beside another, since before this moment, and
    /// whose caller went away. Whoever takes it over does not look at the lock.
    fn goes_on_beside(&self, key: usize, moment: Duration, computation: &Computation) -> bool {
        let (mut at, slack) = (computation.began, self.slack());
        while let Some(before) = self.computations_of(key).find(|before| {
            let left = matches!(before.outcome, None | Some(Outcome::Panics));
            let ended = before.ended.unwrap_or_default();
            left && before.began < at && ended <= at + slack && ended + slack >= at
        }) {
            at = before.began;
            if at <= moment {
                return true;
            }
        }
        false
    }
}
