use std::time::Duration;

use crate::cache::fill::Keep;
use crate::cache::freshness::Window;
use crate::coordinate::keys::{LOCK_TTL, RETRY_DELAY, check_duration};
use crate::coordinate::lease::Terms;
use crate::error::{Error, ErrorKind, Result};
use crate::store::ttl::{MAX_TTL, Ttl};

/// What [`guarded_get`](crate::KvStoreExt::guarded_get) does where the store cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnStoreError {
    /// The caller gets the store's error.
    #[default]
    Fail,
    /// It counts as a miss: the value is computed at once, by one caller at a time in this process,
    /// and not stored.
    Compute,
}

/// Options of [`guarded_get`](crate::KvStoreExt::guarded_get) and of [`Cache`](crate::Cache).
///
/// | option | default | meaning |
/// |---|---|---|
/// | [`new(ttl)`](Self::new), [`ttl`](Self::ttl) | must be given | how long a value is fresh; [`forever`](Self::forever) has no TTL |
/// | [`stale`](Self::stale) | none | for how long beyond its TTL a value is served |
/// | [`early`](Self::early) | none | the share of the TTL after which one caller refreshes |
/// | [`jitter`](Self::jitter) | 0 | the largest share by which a TTL is shortened at random |
/// | [`backoff`](Self::backoff) | 10 s with `stale`; without it 10 s for an `early` refresh, and 0 for a missing value | how long a computation that failed is not tried again |
/// | [`soft_timeout`](Self::soft_timeout) | 0 | how long the caller that begins a refresh waits for it; only for `Cache` |
/// | [`lock_ttl`](Self::lock_ttl) | 2 s | how long a lock outlives a holder that crashed |
/// | [`retry_delay`](Self::retry_delay) | 50 ms | how long it takes at most until waiting callers see a stored value |
/// | [`on_store_error`](Self::on_store_error) | [`Fail`](OnStoreError::Fail) | what happens where the store cannot be read |
///
/// The user guide explains each of them on its page about the cache (`docs/guide/src/cache.md` in the
/// repository).
///
/// # Stale data and early refresh
///
/// With [`stale`](Self::stale) a value stays in the store for its TTL and that time after it. From the
/// end of its TTL on, one caller of all processes refreshes it, and everybody else gets the stale value
/// at once. Where the refresh fails, all get the stale value. With [`early`](Self::early) one caller
/// refreshes the value before its TTL ends, and nobody meets a stale one.
///
/// ```text
///   stored                    early           ttl                            ttl + stale
///     |------- fresh ----------|---- fresh ----|----------- stale ------------|  gone
///                              one refreshes   one refreshes                     all wait
/// ```
///
/// The age of a value is what is left of its key: it is not stored anywhere. So all callers of one key
/// must name the same `stale`, and readers that know nothing of it, such as a plain
/// [`get`](crate::KvStore::get), see the value for so much longer. After a change of `stale`, values that
/// are there already are judged wrong by the difference, once.
///
/// Laws: `cache::serves_stale_while_one_refreshes`, `cache::serves_stale_when_the_refresh_fails`,
/// `cache::serves_nothing_past_the_stale_window`, `cache::cools_down_after_a_failure`,
/// `cache::refreshes_early`, `cache::succeeds_a_dead_refresher`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::{GuardedGet, OnStoreError};
///
/// let options = GuardedGet::new(Duration::from_secs(300))
///     .stale(Duration::from_secs(2 * 3600))
///     .early(0.9)
///     .jitter(0.1)
///     .lock_ttl(Duration::from_secs(10))
///     .on_store_error(OnStoreError::Compute);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct GuardedGet {
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale: Option<Duration>,
    pub(crate) early: Option<f64>,
    pub(crate) jitter: f64,
    pub(crate) backoff: Option<Duration>,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) lock_ttl: Duration,
    pub(crate) retry_delay: Duration,
    pub(crate) on_store_error: OnStoreError,
}

/// How long a failed computation is not tried again where there is stale data to serve, and the options
/// do not say.
const BACKOFF: Duration = Duration::from_secs(10);

impl GuardedGet {
    /// Keeps a computed value for `ttl`.
    pub const fn new(ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..Self::forever() }
    }

    /// Keeps a computed value until it is deleted or invalidated.
    pub const fn forever() -> Self {
        Self {
            ttl: None,
            stale: None,
            early: None,
            jitter: 0.0,
            backoff: None,
            soft_timeout: None,
            lock_ttl: LOCK_TTL,
            retry_delay: RETRY_DELAY,
            on_store_error: OnStoreError::Fail,
        }
    }

    /// How long a computed value is fresh.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// For how long beyond its TTL a value is served while it is refreshed, and where that fails. By
    /// default not at all.
    pub const fn stale(mut self, stale: Duration) -> Self {
        self.stale = Some(stale);
        self
    }

    /// The share of the TTL after which a value is refreshed although it is fresh, between 0 and 1: with
    /// 0.9 in the last tenth. By default it is not refreshed before its TTL has ended.
    pub const fn early(mut self, early: f64) -> Self {
        self.early = Some(early);
        self
    }

    /// The largest share by which a TTL is shortened at random, so that values that were stored together
    /// do not end together: with 0.1 a TTL of 300 s becomes one of 270 to 300 s. At least 0 and less than
    /// 1; by default 0.
    pub const fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// How long a computation that failed is not tried again, by anybody in any process, from its end on.
    /// Until then callers get the stale value, or [`Failing`](crate::ErrorKind::Failing) at once.
    /// [`invalidate`](crate::KvStoreExt::invalidate) ends it. By default 10 s with [`stale`](Self::stale),
    /// and without it 10 s for an [early](Self::early) refresh and zero, which is not at all, for a value
    /// that is missing. Where a cold key must be tried again at once, choose zero.
    pub const fn backoff(mut self, backoff: Duration) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// How long the caller of [`Cache`](crate::Cache) that begins to refresh a stale value waits for the
    /// new one, before it gets the stale one and the refresh goes on in the background. By default zero:
    /// it does not wait.
    ///
    /// [`guarded_get`](crate::guarded_get) refuses it: its computation cannot go on without its caller.
    pub const fn soft_timeout(mut self, soft_timeout: Duration) -> Self {
        self.soft_timeout = Some(soft_timeout);
        self
    }

    /// How long the lock outlives a holder that crashed, and after how long behind a holder that is
    /// alive another caller computes as well. By default two seconds: choose more than a computation
    /// usually takes.
    pub const fn lock_ttl(mut self, lock_ttl: Duration) -> Self {
        self.lock_ttl = lock_ttl;
        self
    }

    /// How long it takes at most until those who wait see a value in the store, and the least time
    /// between two tries of one process to refresh a value that another one has locked. By default
    /// 50 ms.
    pub const fn retry_delay(mut self, retry_delay: Duration) -> Self {
        self.retry_delay = retry_delay;
        self
    }

    /// What to do where the store cannot be read. By default the caller gets the error.
    pub const fn on_store_error(mut self, on_store_error: OnStoreError) -> Self {
        self.on_store_error = on_store_error;
        self
    }

    /// How long a value that is stored with these options stays in the store: its TTL and the stale time
    /// after it. This is what [`refresh`](crate::refresh) wants; jitter is not in it.
    #[must_use]
    pub fn stored_for(&self) -> Option<Duration> {
        let ttl = self.ttl?;
        Some(ttl.saturating_add(self.stale.unwrap_or_default()).min(MAX_TTL))
    }

    /// The same options, all but the TTL and `soft_timeout` in whole milliseconds.
    pub(crate) fn checked(&self) -> Result<Self> {
        Ttl::optional(self.ttl)?;
        let lock_ttl = check_duration("lock_ttl", self.lock_ttl)?;
        let retry_delay = check_duration("retry_delay", self.retry_delay)?;
        let stale = self.stale.map(|stale| check_duration("stale", stale)).transpose()?;
        let ttl = self.ttl.unwrap_or_default();
        let refused = |message| Err(Error::new(ErrorKind::InvalidArgument, message));
        if self.ttl.is_none() && (stale.is_some() || self.early.is_some() || self.jitter != 0.0) {
            return refused(
                "`stale`, `early` and `jitter` need a TTL: a value that is kept for ever has no end to \
                 which they could refer",
            );
        }
        if ttl.checked_add(stale.unwrap_or_default()).is_none_or(|kept| kept > MAX_TTL) {
            return refused("`ttl` and `stale` must be at most 100 years together");
        }
        // Written so that NaN is refused as well.
        if !self.early.is_none_or(|early| 0.0 < early && early < 1.0) {
            return refused("`early` must be a share of the TTL above 0 and below 1, such as 0.9");
        }
        if !(0.0 <= self.jitter && self.jitter < 1.0) {
            return refused(
                "`jitter` must be a share of the TTL of at least 0 and below 1, such as 0.1",
            );
        }
        if self.early.is_some_and(|early| self.jitter >= early) {
            return refused(
                "`jitter` must be less than `early`: a value whose TTL is shortened by more is refreshed \
                 as soon as it is stored",
            );
        }
        if self.soft_timeout.is_some() && stale.is_none() {
            return refused(
                "`soft_timeout` needs `stale`: without it there is no value to answer with",
            );
        }
        let backoff = match self.backoff {
            Some(backoff) if !backoff.is_zero() => Some(check_duration("backoff", backoff)?),
            backoff => backoff,
        };
        Ok(Self { lock_ttl, retry_delay, stale, backoff, ..*self })
    }

    /// How long a refresh that failed is not tried again: there is a value to serve meanwhile.
    pub(crate) fn refresh_backoff(&self) -> Option<Duration> {
        Some(self.backoff.unwrap_or(BACKOFF)).filter(|backoff| !backoff.is_zero())
    }

    /// How long a value that is missing is not computed again after a failure.
    pub(crate) fn miss_backoff(&self) -> Option<Duration> {
        let default = if self.stale.is_some() { BACKOFF } else { Duration::ZERO };
        Some(self.backoff.unwrap_or(default)).filter(|backoff| !backoff.is_zero())
    }

    /// After so long a computation for which nobody waits any more is taken for one that hangs.
    pub(crate) fn hung_after(&self) -> Duration {
        self.lock_ttl.saturating_mul(10)
    }

    /// For how long a lock is renewed while nobody says that its computation goes on.
    pub(crate) fn renewed_for(&self) -> Duration {
        self.hung_after().saturating_mul(2)
    }

    /// The lease of a computation. It ends by itself, though the store's runtime goes on renewing it, where
    /// nobody drives the caller's runtime any more.
    pub(crate) fn lease(&self) -> Terms {
        Terms { ttl: self.lock_ttl, renewed_for: Some(self.renewed_for()) }
    }

    /// Whether the expiry of a value is read with it.
    pub(crate) fn reads_ttl(&self) -> bool {
        self.stale.is_some() || self.early.is_some()
    }

    /// When values that are kept for `ttl` become stale, and are refreshed.
    pub(crate) fn window(&self, ttl: Option<Duration>) -> Window {
        let early = match (self.early, ttl) {
            (Some(early), Some(ttl)) => ttl.mul_f64(1.0 - early),
            _ => Duration::ZERO,
        };
        Window { stale: self.stale.unwrap_or_default(), early }
    }

    /// What becomes of a value, with the jitter that its TTL gets.
    pub(crate) fn storing(&self, keep: Keep) -> Storing {
        let ttl = match keep {
            Keep::Not => return Storing::Not,
            Keep::Remove => return Storing::Remove,
            Keep::AsOptions => self.ttl,
            Keep::For(ttl) => Some(ttl),
        };
        let random = if self.jitter > 0.0 { random() } else { 0.0 };
        Storing::For(ttl.map(|ttl| self.keeps_for(ttl, random)))
    }

    /// How long a value is kept that is fresh for `ttl`. `random` is from 0 to 1.
    pub(crate) fn keeps_for(&self, ttl: Duration, random: f64) -> Duration {
        // Downwards only: nothing is served when it is older than TTL and stale time together.
        let fresh = ttl.min(MAX_TTL).mul_f64(1.0 - self.jitter * random);
        let fresh = fresh.max(Duration::from_millis(1));
        fresh.saturating_add(self.stale.unwrap_or_default()).min(MAX_TTL)
    }
}

/// Whether a value is stored, and with which TTL.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Storing {
    Not,
    /// What is there is removed.
    Remove,
    For(Option<Duration>),
}

/// From 0 to 1. Where the operating system gives no random bytes, values are kept for the whole TTL.
fn random() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_does_not_fit_together_is_refused_by_name() {
        let options = GuardedGet::new(MINUTE);
        let forever = GuardedGet::forever();
        for (wrong, named) in [
            (options.stale(Duration::ZERO), "`stale`"),
            (options.stale(MAX_TTL), "`ttl` and `stale`"),
            (options.stale(Duration::MAX), "`stale`"),
            (options.early(0.0), "`early`"),
            (options.early(1.0), "`early`"),
            (options.early(f64::NAN), "`early`"),
            (options.early(90.0), "`early`"),
            (options.jitter(1.0), "`jitter`"),
            (options.jitter(-0.1), "`jitter`"),
            (options.jitter(f64::NAN), "`jitter`"),
            (options.early(0.5).jitter(0.5), "`jitter` must be less than `early`"),
            (options.backoff(Duration::MAX), "`backoff`"),
            (options.soft_timeout(Duration::ZERO), "`soft_timeout` needs"),
            (options.lock_ttl(Duration::ZERO), "`lock_ttl`"),
            (options.retry_delay(Duration::ZERO), "`retry_delay`"),
            (forever.stale(MINUTE), "`stale`"),
            (forever.early(0.5), "`early`"),
            (forever.jitter(0.5), "`jitter`"),
        ] {
            let error = wrong.checked().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(named), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn a_cool_down_is_the_default_where_there_is_something_to_serve() {
        let options = GuardedGet::new(MINUTE);
        let backoff = |options: GuardedGet| {
            let options = options.checked().unwrap();
            (options.miss_backoff(), options.refresh_backoff())
        };
        let ten = Some(BACKOFF);
        assert_eq!(backoff(options).0, None);
        assert_eq!(backoff(options.early(0.5)), (None, ten));
        assert_eq!(backoff(options.stale(MINUTE)), (ten, ten));
        assert_eq!(backoff(options.stale(MINUTE).backoff(Duration::ZERO)), (None, None));
        assert_eq!(backoff(options.backoff(MINUTE)), (Some(MINUTE), Some(MINUTE)));
    }

    #[test]
    fn jitter_shortens_the_ttl_and_nothing_else() {
        let options = GuardedGet::new(MINUTE).stale(MINUTE).jitter(0.5);
        assert_eq!(options.keeps_for(MINUTE, 0.0), 2 * MINUTE);
        assert_eq!(options.keeps_for(MINUTE, 1.0), MINUTE + MINUTE / 2);
        assert_eq!(options.keeps_for(Duration::MAX, 0.0), MAX_TTL);
        assert_eq!(options.stored_for(), Some(2 * MINUTE));
    }
}
