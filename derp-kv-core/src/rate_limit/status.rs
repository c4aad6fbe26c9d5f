use std::time::Duration;

use crate::observe::decided_by::DecidedBy;
use crate::rate_limit::limit::RateLimit;
use crate::store::step::standing::{Standing, Stepped};

/// The answer to a call under a [`RateLimit`].
///
/// Of [several limits](RateLimit::all) it tells the one that decides: the one that failed and lasts
/// longest, or else the one of which least remains. [`each`](Self::each) tells them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitStatus {
    /// Whether the call may go on. Ask this, and not whether there is a
    /// [`retry_after`](Self::retry_after): a call that is never allowed has none.
    pub allowed: bool,
    /// What counts against the limit: in a fixed window what was counted, denied calls included; in
    /// a smooth one the part of the burst that is used, so that it and what remains are the burst.
    pub count: u64,
    /// The limit.
    pub limit: u64,
    /// What would be allowed at once, 0 at the least.
    pub remaining: u64,
    /// For a denied call, when it will be allowed: whoever waits that long, alone, is allowed, and
    /// under a smooth or strict limit a millisecond less is too early. Of a fixed window, when the
    /// next one begins; on a server, whose keys end within a millisecond, up to one later. None where
    /// it never will be, or where nobody knows.
    pub retry_after: Option<Duration>,
    /// When one more unit will be allowed than is now; none where nothing is counted.
    pub next_after: Option<Duration>,
    /// When all that is counted will have gone.
    pub reset_after: Duration,
    /// Who decided.
    pub source: DecidedBy,
    /// Which limit failed, by its place in [`RateLimit::all`]. Of several that failed, the one that
    /// lasts longest. None where the call is allowed, and where no limit was asked.
    pub violated: Option<usize>,
    each: Stepped,
}

impl RateLimitStatus {
    /// What a step came to.
    pub(crate) fn of(limit: &RateLimit, stepped: Stepped, source: DecidedBy) -> Self {
        let standings = stepped.standings();
        // One that never lets the call pass lasts longest.
        let lasts = |place: &usize| standings[*place].retry_after.unwrap_or(Duration::MAX);
        let failed = (0..standings.len()).filter(|place| !standings[*place].fits);
        let violated = failed.max_by_key(lasts);
        let scarcest = |place: &usize| {
            let standing = standings[*place];
            (standing.remaining, std::cmp::Reverse(standing.next_after))
        };
        let told = violated.or_else(|| (0..standings.len()).min_by_key(scarcest)).unwrap_or(0);
        let standing = standings.get(told).copied().unwrap_or_default();
        Self {
            allowed: stepped.admitted(),
            count: standing.count,
            limit: limit.rules().get(told).map_or(0, |rule| rule.limit),
            remaining: standing.remaining,
            retry_after: standing.retry_after,
            next_after: standing.next_after,
            reset_after: standing.reset_after,
            source,
            violated,
            each: stepped,
        }
    }

    /// Where no limit was asked: nothing is known of what remains.
    pub(crate) fn unasked(limit: &RateLimit, allowed: bool, violated: Option<usize>) -> Self {
        let fits = |place| allowed || violated.is_some_and(|violated| violated != place);
        let standing = |place| Standing { fits: fits(place), ..Standing::default() };
        let standings = (0..limit.rules().len()).map(standing);
        let mut status = Self::of(limit, Stepped::new(allowed, standings), DecidedBy::Policy);
        status.violated = violated;
        status
    }

    /// The same answer, given so much later by one who remembers it.
    pub(crate) fn aged(&self, passed: Duration) -> Self {
        let less = |left: Duration| left.saturating_sub(passed).max(Duration::from_millis(1));
        let later = |standing: &Standing| Standing {
            retry_after: standing.retry_after.map(less),
            next_after: standing.next_after.filter(|after| *after > passed).map(less),
            reset_after: less(standing.reset_after),
            ..*standing
        };
        let each = Stepped::new(self.allowed, self.each.standings().iter().map(later));
        Self {
            retry_after: self.retry_after.map(less),
            next_after: self.next_after.filter(|after| *after > passed).map(less),
            reset_after: less(self.reset_after),
            source: DecidedBy::Blocked,
            each,
            ..*self
        }
    }

    /// How each limit stands, in the order of [`RateLimit::all`]; of any other limit, how it does.
    #[must_use]
    pub fn each(&self) -> &[Standing] {
        self.each.standings()
    }

    /// [`retry_after`](Self::retry_after) in whole seconds, rounded up: the value of the HTTP
    /// header `Retry-After`.
    #[must_use]
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after.map(|left| left.as_secs() + u64::from(left.subsec_nanos() > 0))
    }
}
