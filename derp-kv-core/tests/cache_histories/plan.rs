//! What happens in a history, as it is drawn.

use std::time::Duration;

use derp_kv_core::{GuardedGet, OnStoreError};

use crate::dice::Dice;

pub(crate) const KEYS: [&str; 2] = ["a", "b"];

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) processes: usize,
    pub(crate) ttl: Duration,
    pub(crate) stale: Option<Duration>,
    pub(crate) backoff: Option<Duration>,
    pub(crate) lock_ttl: Duration,
    pub(crate) retry_delay: Duration,
    pub(crate) soft_timeout: Option<Duration>,
    /// With all of these but the soft time-out.
    pub(crate) options: GuardedGet,
    /// The most that one way to the store takes.
    pub(crate) latency: Duration,
    /// In how many of a hundred calls of the store something is lost.
    pub(crate) loses: u64,
    pub(crate) calls: Vec<Call>,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Duration,
    pub(crate) process: usize,
    pub(crate) key: usize,
    pub(crate) what: What,
    /// After which the caller goes away.
    pub(crate) patience: Option<Duration>,
    pub(crate) takes: Duration,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Guarded,
    Get,
    Many,
    Put,
    Invalidate,
}

/// What becomes of a computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Value,
    /// Kept for a TTL of its own.
    ValueFor(Duration),
    /// Not to be kept.
    Unstored,
    Fails,
    Panics,
    Hangs,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let ttl = dice.millis(5..200);
        let stale = dice.chance(75).then(|| dice.millis(5..500));
        let early = dice.chance(40).then(|| dice.pick(&[0.3, 0.6, 0.9]));
        let lock_ttl = dice.millis(50..200);
        let retry_delay = dice.millis(2..40);
        let some = dice.millis(5..300);
        let given = dice.pick(&[None, Some(Duration::ZERO), Some(some)]);
        let default = stale.map(|_| Duration::from_secs(10));
        let mut options = GuardedGet::new(ttl).lock_ttl(lock_ttl).retry_delay(retry_delay);
        if let Some(stale) = stale {
            options = options.stale(stale);
        }
        if let Some(early) = early {
            options = options.early(early);
        }
        if dice.chance(30) {
            options = options.jitter(0.2);
        }
        if let Some(backoff) = given {
            options = options.backoff(backoff);
        }
        if dice.chance(30) {
            options = options.on_store_error(OnStoreError::Compute);
        }
        let calls = 5 + dice.below(25);
        let soft = stale.is_some() && dice.chance(40);
        Self {
            processes: 2 + dice.index(2),
            ttl,
            stale,
            backoff: given.or(default).filter(|backoff| !backoff.is_zero()),
            lock_ttl,
            retry_delay,
            soft_timeout: soft.then(|| dice.millis(0..100)),
            options,
            latency: Duration::from_millis(dice.pick(&[0, 1, 3])),
            loses: if dice.chance(33) { dice.pick(&[2, 10, 40]) } else { 0 },
            calls: (0..calls).map(|_| Call::draw(dice, lock_ttl)).collect(),
        }
    }

    /// With the time of a lost millisecond.
    pub(crate) fn round_trip(&self) -> Duration {
        self.latency * 2 + Duration::from_millis(1)
    }

    pub(crate) fn has_faults(&self) -> bool {
        self.loses > 0
    }

    pub(crate) fn cache_options(&self) -> GuardedGet {
        match self.soft_timeout {
            Some(soft_timeout) => self.options.soft_timeout(soft_timeout),
            None => self.options,
        }
    }
}

impl Call {
    fn draw(dice: &mut Dice, lock_ttl: Duration) -> Self {
        let what = dice.pick(&[
            What::Guarded,
            What::Guarded,
            What::Get,
            What::Get,
            What::Get,
            What::Many,
            What::Put,
            What::Invalidate,
        ]);
        let outcome = match dice.below(20) {
            0..=9 => Outcome::Value,
            10 | 11 => Outcome::ValueFor(dice.millis(0..100)),
            12 => Outcome::Unstored,
            13..=16 => Outcome::Fails,
            17 | 18 => Outcome::Panics,
            _ => Outcome::Hangs,
        };
        let takes = match dice.below(10) {
            0 => Duration::ZERO,
            1..=6 => dice.millis(1..40),
            7 | 8 => dice.millis(1..200),
            _ => lock_ttl * u32::try_from(dice.below(13)).unwrap(),
        };
        let leaves = outcome == Outcome::Hangs || dice.chance(25);
        Self {
            at: dice.millis(0..1_000),
            process: dice.index(3),
            key: usize::from(dice.chance(20)),
            what,
            patience: leaves.then(|| dice.millis(0..300)),
            takes,
            outcome,
        }
    }
}
