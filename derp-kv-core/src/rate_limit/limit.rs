use std::borrow::Cow;
use std::time::Duration;

use crate::coordinate::keys::{
    HelperKey, RATE_LIMIT_PREFIX, SMOOTH_PREFIX, STRICT_PREFIX, check_duration, helper_key,
};
use crate::coordinate::nonce::nonce;
use crate::error::{Error, ErrorKind, Result};
use crate::store::step::Step;
use crate::store::step::ask::Ask;
use crate::store::step::smooth::{SmoothLimit, SmoothStep};
use crate::store::step::standing::MAX_LIMITS;
use crate::store::step::strict::{StrictLimit, StrictStep};
use crate::store::ttl::MAX_TTL;

/// A limit of so many calls, and what it promises.
///
/// | limit | what it promises | at most, in any window |
/// |---|---|---|
/// | [`new`](Self::new) | the cheapest: a fixed window | `limit` in each of its windows, so up to `2 * limit` around an edge |
/// | [`smooth`](Self::smooth) | calls pass evenly | `burst + (t + 1 ms) / T` in any time `t`, where `T = period / limit`; `1 ms / T` more where `T` is below a millisecond |
/// | [`strict`](Self::strict) | never more than `limit` | `limit`; what a call took comes back at most `window / 60` late, rounded up to whole milliseconds |
/// | [`all`](Self::all) | all of up to eight smooth or strict limits | that of each |
///
/// | option | default | meaning |
/// |---|---|---|
/// | [`burst`](Self::burst) | the limit | for a smooth limit: how many calls may pass at once after a pause |
/// | [`cost`](Self::cost) | 1 | what a call counts for |
/// | [`key_prefix`](Self::key_prefix) | `derp:ratelimit` for `new`, `derp:smooth`, `derp:strict` | what the key begins with |
///
/// The user guide tells which limit to take (`docs/guide/src/rate-limits.md` in the repository), and
/// `docs/rate-limits.md` has the measured bounds.
///
/// # Keys
///
/// Two limits of one kind share what they count where their ids are the same: name what is limited in
/// the id (`search:ada`), or give each limit a [`key_prefix`](Self::key_prefix). Processes that have
/// different numbers for one limit, as during a deployment, keep the higher one together.
///
/// # Clock
///
/// Each call is one command. Nobody's clock is read but the store's: the remaining TTL of the key.
/// What is counted lasts as long as the store keeps it: a fail-over that loses writes, and a server
/// that evicts keys with a TTL, forget calls.
///
/// It is passed by reference: keep one in a `const` or a field, and no call allocates for it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::RateLimit;
///
/// const SECOND: Duration = Duration::from_secs(1);
/// const CHECKOUT: RateLimit = RateLimit::new(5, Duration::from_secs(60));
/// let large_order = CHECKOUT.cost(3);
/// // 100 a second, and no more than 10 at once:
/// const SEARCH: RateLimit = RateLimit::smooth(100, SECOND).burst(10);
/// // Both at once, in one command:
/// let mails = RateLimit::all([
///     RateLimit::strict(1, 30 * SECOND),
///     RateLimit::strict(20, 86_400 * SECOND),
/// ]);
/// # let _ = (large_order, SEARCH, mails);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RateLimit {
    rules: [Rule; MAX_LIMITS],
    len: usize,
    key_prefix: Option<Cow<'static, str>>,
    mistake: Option<&'static str>,
}

/// One limit of a [`RateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) promise: Promise,
    pub(crate) limit: u64,
    pub(crate) window: Duration,
    pub(crate) burst: Option<u64>,
    pub(crate) cost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    Fixed,
    Smooth,
    Strict,
}

/// How a limit is decided.
// A box would be an allocation a call.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Plan {
    /// By a counter whose key lasts for a window.
    Fixed(FixedWindow),
    /// By a step of the store.
    Step(Step),
    /// By nobody: this limit is 0, and admits nothing.
    Never { violated: usize },
}

/// A fixed window whose numbers are checked.
pub(crate) struct FixedWindow {
    pub(crate) limit: u64,
    /// In whole milliseconds.
    pub(crate) window: Duration,
    /// As counters have it.
    pub(crate) cost: i64,
}

impl RateLimit {
    /// `limit` calls in each fixed `window`, which begins with its first call; a limit of 0 denies
    /// all. Denied calls are counted, too.
    ///
    /// It is counted at `derp:ratelimit:{id}`, where derp-py counts, too.
    pub const fn new(limit: u64, window: Duration) -> Self {
        Self::of(Promise::Fixed, limit, window)
    }

    /// `limit` calls in a `period`, which pass evenly: one each `period / limit`, and those of a
    /// [`burst`](Self::burst) at once. A limit of 0 denies all.
    ///
    /// A denied call takes nothing away. It is kept at `derp:smooth:{id}`. The time of a call is
    /// rounded up to a nanosecond: a limit of a million a second is lowered by a thousandth at most, and
    /// one of a thousand million by half.
    ///
    /// It is the generic cell rate algorithm (GCRA, ITU-T I.371).
    pub const fn smooth(limit: u64, period: Duration) -> Self {
        Self::of(Promise::Smooth, limit, period)
    }

    /// Never more than `limit` calls in any `window`, wherever it begins; a limit of 0 denies all.
    ///
    /// The window is counted in up to 60 sub-windows, of a sixtieth of it in whole milliseconds, rounded
    /// up. What a call took comes back at most one of them late, or a millisecond. So callers that ask at
    /// exactly the rate get a little less than it: about `60 / 61` of a limit of 60 or more,
    /// `limit / (limit + 1)` of a lower one. A denied call takes nothing away. It is kept at
    /// `derp:strict:{id}`.
    ///
    /// Where the window is changed, what counts then counts as of the next call that is admitted.
    pub const fn strict(limit: u64, window: Duration) -> Self {
        Self::of(Promise::Strict, limit, window)
    }

    /// All of up to eight limits on one id: a call passes where each of them lets it, and is counted
    /// by all or by none. One key and one command, and the answer names the limit that
    /// [failed](crate::RateLimitStatus::violated).
    ///
    /// All are smooth or all are strict. They are told apart by their order and number: keep both where
    /// you change one, and give them another [`key_prefix`](Self::key_prefix) where you cannot. A call
    /// forgets what was counted for limits that it does not name. Each keeps its own [`cost`](Self::cost), and one that is set on the whole is set
    /// on each; a [`key_prefix`](Self::key_prefix) is set on the whole.
    ///
    /// What cannot be combined is an error of each call.
    pub fn all(limits: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self { len: 0, ..Self::new(0, Duration::ZERO) };
        for limit in limits {
            all.mistake = all.mistake.or(limit.mistake);
            if limit.key_prefix.is_some() {
                all.note("`key_prefix` is set on all limits together, not on one of them");
            }
            for rule in limit.rules() {
                match all.rules.get_mut(all.len) {
                    Some(place) => *place = *rule,
                    None => return Self { mistake: Some("`all` takes at most 8 limits"), ..all },
                }
                all.len += 1;
            }
        }
        let mixed = all.rules().iter().any(|rule| rule.promise != all.rules[0].promise);
        if all.len == 0 {
            all.note("`all` takes at least one limit");
        } else if mixed {
            all.note("`all` takes smooth limits or strict ones, not both at once");
        } else if all.len > 1 && all.rules[0].promise == Promise::Fixed {
            all.note("`all` takes smooth or strict limits: a fixed window is a key of its own");
        }
        all
    }

    const fn of(promise: Promise, limit: u64, window: Duration) -> Self {
        const NONE: Rule = Rule::of(Promise::Fixed, 0, Duration::ZERO);
        let mut rules = [NONE; MAX_LIMITS];
        rules[0] = Rule::of(promise, limit, window);
        Self { rules, len: 1, key_prefix: None, mistake: None }
    }

    fn note(&mut self, mistake: &'static str) {
        self.mistake.get_or_insert(mistake);
    }

    /// How many calls of a smooth limit may pass at once after a pause. By default as many as the
    /// limit.
    pub const fn burst(mut self, burst: u64) -> Self {
        let mut place = 0;
        while place < self.len {
            self.rules[place].burst = Some(burst);
            place += 1;
        }
        self
    }

    /// What this call counts for, from 1 to the limit, or to the burst of a smooth one. By default 1.
    pub const fn cost(mut self, cost: u64) -> Self {
        let mut place = 0;
        while place < self.len {
            self.rules[place].cost = cost;
            place += 1;
        }
        self
    }

    /// What the key begins with. By default `derp:ratelimit`, `derp:smooth` or `derp:strict`. No
    /// other helper, and no limit of another kind, may have the same.
    pub fn key_prefix(mut self, key_prefix: impl Into<Cow<'static, str>>) -> Self {
        self.key_prefix = Some(key_prefix.into());
        self
    }

    /// The step that decides a call, for stores and their tests: see [`Step`].
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) where a call would have it, for a fixed
    /// window, and for a limit of 0, which needs no store to be decided.
    pub fn step(&self, ask: Ask) -> Result<Step> {
        self.check_parts()?;
        match self.plan(ask)? {
            Plan::Step(step) => Ok(step),
            Plan::Fixed(_) => Err(invalid("a fixed window is counted by `incr`, not by a step")),
            Plan::Never { .. } => Err(invalid("a limit of 0 is decided without a step")),
        }
    }

    /// Refuses limits that [`all`](Self::all) could not combine.
    fn check_parts(&self) -> Result<()> {
        self.mistake.map_or(Ok(()), |mistake| Err(invalid(mistake)))
    }

    pub(crate) fn change(&mut self, change: impl Fn(&mut Rule)) {
        self.rules[..self.len].iter_mut().for_each(change);
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules[..self.len]
    }

    pub(crate) fn key(&self, id: &[u8]) -> Result<HelperKey> {
        self.check_parts()?;
        let own = match self.rules[0].promise {
            Promise::Fixed => RATE_LIMIT_PREFIX,
            Promise::Smooth => SMOOTH_PREFIX,
            Promise::Strict => STRICT_PREFIX,
        };
        helper_key(own, self.key_prefix.as_deref().unwrap_or(own), id)
    }

    /// Checks all that a call needs beside its [`key`](Self::key).
    pub(crate) fn plan(&self, ask: Ask) -> Result<Plan> {
        for rule in self.rules() {
            rule.check(ask)?;
        }
        let first = &self.rules[0];
        if first.promise == Promise::Fixed {
            return Ok(Plan::Fixed(first.fixed()?));
        }
        let admits_none = |rule: &Rule| rule.limit == 0 || rule.burst == Some(0);
        if let Some(violated) = self.rules().iter().position(admits_none) {
            return Ok(Plan::Never { violated });
        }
        let nonce = nonce()?;
        Ok(Plan::Step(if first.promise == Promise::Smooth {
            let mut limits = [SmoothLimit::default(); MAX_LIMITS];
            for (place, rule) in limits.iter_mut().zip(self.rules()) {
                *place = rule.smooth()?;
            }
            Step::Smooth(SmoothStep::new(nonce, ask, &limits[..self.len]))
        } else {
            let mut limits = [StrictLimit::default(); MAX_LIMITS];
            for (place, rule) in limits.iter_mut().zip(self.rules()) {
                *place = rule.strict()?;
            }
            Step::Strict(StrictStep::new(nonce, ask, &limits[..self.len]))
        }))
    }
}

impl Rule {
    const fn of(promise: Promise, limit: u64, window: Duration) -> Self {
        Self { promise, limit, window, burst: None, cost: 1 }
    }

    fn check(&self, ask: Ask) -> Result<()> {
        if self.burst.is_some() && self.promise != Promise::Smooth {
            return Err(invalid("`burst` is for smooth limits: this one has none"));
        }
        if self.cost == 0 {
            return Err(invalid("`cost` must be above zero; `rate_limit_peek` counts nothing"));
        }
        let most = self.most();
        if self.cost > most && most > 0 && ask != Ask::Refund {
            return Err(invalid(match self.promise {
                Promise::Smooth => "`cost` is above the burst: the call could never be allowed",
                _ => "`cost` is above the limit: the call could never be allowed",
            }));
        }
        Ok(())
    }

    /// What may pass at once.
    pub(crate) fn most(&self) -> u64 {
        if self.limit == 0 { 0 } else { self.burst.unwrap_or(self.limit) }
    }

    fn fixed(&self) -> Result<FixedWindow> {
        let cost = i64::try_from(self.cost)
            .map_err(|_| invalid("`cost` must be at most 9223372036854775807"))?;
        let window = check_duration("window", self.window)?;
        Ok(FixedWindow { limit: self.limit, window, cost })
    }

    fn smooth(&self) -> Result<SmoothLimit> {
        let period = check_duration("period", self.window)?;
        SmoothLimit::new(self.limit, period, self.most(), self.cost, MAX_TTL).ok_or_else(|| {
            invalid(match self.burst {
                Some(_) => "`burst` is too large: it would last for more than 100 years",
                None => "`limit` is too large to be the burst, too: set a `burst`",
            })
        })
    }

    fn strict(&self) -> Result<StrictLimit> {
        let window = check_duration("window", self.window)?;
        let limit = u32::try_from(self.limit)
            .map_err(|_| invalid("`limit` must be at most 4294967295 where it is strict"))?;
        let cost = u32::try_from(self.cost).unwrap_or(u32::MAX);
        if window >= MAX_TTL {
            return Err(invalid("`window` must be shorter than 100 years where it is strict"));
        }
        Ok(StrictLimit::new(limit, window, cost))
    }
}

impl FixedWindow {
    /// No counter goes further than an `i64`.
    pub(crate) fn allows(&self, count: u64) -> bool {
        count <= self.limit.min(i64::MAX.unsigned_abs())
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
