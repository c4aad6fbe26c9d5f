use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::observe::decided_by::DecidedBy;
use crate::rate_limit::limit::{Plan, Promise, RateLimit, Rule};
use crate::rate_limit::local::{Kept, Remembered};
use crate::rate_limit::status::RateLimitStatus;
use crate::store::expiry::Expiry;
use crate::store::step::ask::Ask;
use crate::store::step::change::Change;
use crate::store::step::record::Value;
use crate::store::ttl::MAX_TTL;

/// What a [`RateLimiter`](crate::RateLimiter) answers where the store fails.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum WithoutStore {
    /// Every call is denied.
    Deny,
    /// Every call is allowed.
    Allow,
    /// This process decides by itself, by this share of the limit: above 0, at most 1.
    ///
    /// With `n` processes, a share of `1 / n` keeps the whole limit, counted from the moment on when
    /// the store failed; what the store has counted comes on top. Each process lets at least one call
    /// pass at once, though: of less than one it makes one in a longer time, so that all of them together
    /// may let `n` pass where the limit or the burst is lower. A call that costs more than the part is
    /// denied. A fixed window is counted as a [strict](RateLimit::strict) limit. Up to 16,384 ids are
    /// remembered; those beyond share one limit.
    Local {
        /// The share of the limit.
        share: f64,
    },
}

/// What this process has counted while the store failed.
pub(crate) type Counted = Remembered<Value>;

impl WithoutStore {
    /// Decides a call of `id` that the store did not.
    pub(crate) fn decide(
        self,
        counted: &Counted,
        id: &[u8],
        limit: &RateLimit,
    ) -> Result<RateLimitStatus> {
        let share = match self {
            Self::Deny => return Ok(RateLimitStatus::unasked(limit, false, None)),
            Self::Allow => return Ok(RateLimitStatus::unasked(limit, true, None)),
            Self::Local { share } => share,
        };
        let part = limit.share(share);
        let too_much = |rule: &Rule| rule.cost > rule.most();
        if let Some(place) = part.rules().iter().position(too_much) {
            // The whole limit would let it pass, and the part of it never does.
            return Ok(RateLimitStatus::unasked(limit, false, Some(place)));
        }
        let step = match part.plan(Ask::Admit)? {
            Plan::Step(step) => step,
            Plan::Fixed(_) | Plan::Never { .. } => {
                return Ok(RateLimitStatus::unasked(limit, false, Some(0)));
            }
        };
        let stepped = counted.change(id, |found| {
            let seen = found.map(|(value, left)| (&value[..], Expiry::In(left)));
            let (change, stepped) = step.apply(seen)?;
            let kept = match change {
                Change::Keep => Kept::AsItIs,
                Change::Set { value, ttl } => Kept::Until(value, ttl),
                Change::Delete => Kept::Nothing,
            };
            Ok::<_, Error>((kept, stepped))
        })?;
        Ok(RateLimitStatus::of(&part, stepped, DecidedBy::Local))
    }

    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Local { share } if !(share > 0.0 && share <= 1.0) => Err(Error::new(
                ErrorKind::InvalidArgument,
                "`share` must be above 0 and at most 1: with n processes, 1 / n",
            )),
            _ => Ok(()),
        }
    }
}

impl RateLimit {
    /// The part of the limit that a process may use by itself.
    fn share(&self, share: f64) -> Self {
        let mut part = self.clone();
        part.change(|rule| rule.share(share));
        part
    }
}

impl Rule {
    /// A share of less than one unit is one unit in a longer time.
    fn share(&mut self, share: f64) {
        // Far above 2^53 it is rounded: nobody counts so far in an outage.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let part = |units: u64| (units as f64 * share).floor() as u64;
        #[allow(clippy::cast_precision_loss)]
        let limit = self.limit as f64 * share;
        if self.promise == Promise::Fixed {
            self.promise = Promise::Strict;
        }
        let longer = |by: f64| {
            let window = Duration::try_from_secs_f64(self.window.as_secs_f64() / by);
            window.unwrap_or(LONGEST)
        };
        if self.limit == 0 {
            return;
        }
        if self.promise == Promise::Smooth {
            self.window = longer(share);
            self.burst = Some(part(self.most()).max(1));
        } else if limit < 1.0 {
            self.window = longer(limit);
            self.limit = 1;
        } else {
            self.limit = part(self.limit);
        }
        if self.promise == Promise::Strict {
            self.limit = self.limit.min(u32::MAX.into());
        }
        self.window = self.window.min(LONGEST);
    }
}

/// The longest window that any kind of limit takes, in whole seconds.
const LONGEST: Duration = Duration::from_secs(MAX_TTL.as_secs() - 1);
