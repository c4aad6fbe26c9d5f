use std::time::Duration;

/// How many limits one step decides at most.
pub(crate) const MAX_LIMITS: usize = 8;

/// What a [`Step`](crate::Step) came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stepped {
    admitted: bool,
    standings: [Standing; MAX_LIMITS],
    limits: usize,
}

/// How one limit stands: after the call where it was admitted, and otherwise as it was found.
///
/// All times are whole milliseconds, rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// Whether this limit lets the call pass.
    pub fits: bool,
    /// What counts against the limit.
    pub count: u64,
    /// What would pass at once.
    pub remaining: u64,
    /// When the call would pass: whoever waits that long, alone, is admitted, and a millisecond less
    /// is too early. None where it passes now, and where it never will.
    pub retry_after: Option<Duration>,
    /// When one more unit passes than does now; none where nothing is counted.
    pub next_after: Option<Duration>,
    /// When nothing is counted any more.
    pub reset_after: Duration,
}

impl Stepped {
    pub(crate) fn new(admitted: bool, limits: impl IntoIterator<Item = Standing>) -> Self {
        let mut stepped = Self { admitted, standings: Default::default(), limits: 0 };
        for (place, standing) in stepped.standings.iter_mut().zip(limits) {
            *place = standing;
            stepped.limits += 1;
        }
        stepped
    }

    /// Whether the step was made: the call was admitted and counted, or the refund taken. Of a step
    /// that only looks, whether it would be.
    #[must_use]
    pub fn admitted(&self) -> bool {
        self.admitted
    }

    /// How each limit stands, in the order in which the step names them.
    #[must_use]
    pub fn standings(&self) -> &[Standing] {
        &self.standings[..self.limits]
    }
}
