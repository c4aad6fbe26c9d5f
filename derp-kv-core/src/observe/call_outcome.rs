use crate::error::ErrorKind;
use crate::observe::decided_by::DecidedBy;

/// What a helper's call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// The cache had the value, and it was fresh; of [`Cache::peek`](crate::Cache::peek), it was there.
    Hit,
    /// The value is past its TTL and was served within its stale time.
    Stale,
    /// The value came from a computation of another caller in this process, which was waited for.
    Joined,
    /// The caller computed the value.
    Computed,
    /// `peek` found no value.
    Miss,
    /// The work of an idempotency key, or the handler of an event, has run; of
    /// [`already_processed`](crate::already_processed), the event is a new one.
    Executed,
    /// The answer of an idempotency key was there.
    Replayed,
    /// The event had been processed before.
    Duplicate,
    /// The event was given up after [its attempts](crate::Dedup::give_up_after).
    GivenUp,
    /// The rate limit lets the call pass.
    #[non_exhaustive]
    Allowed {
        /// Who decided.
        by: DecidedBy,
    },
    /// The rate limit denies the call.
    #[non_exhaustive]
    Denied {
        /// Who decided.
        by: DecidedBy,
    },
    /// The lock is the caller's.
    Acquired,
    /// Somebody else holds the lock.
    Held,
    /// The call did what it says: an invalidation, a refund, a reset, and the like.
    Done,
    /// The caller's own code failed: the computation, the work, the handler.
    Failed,
    /// The library or the store answered with an error of this kind.
    Refused(ErrorKind),
    /// The caller dropped the call before it was answered, as a time-out around it does.
    Dropped,
}

impl CallOutcome {
    /// The rate limit lets the call pass.
    #[must_use]
    pub const fn allowed(by: DecidedBy) -> Self {
        Self::Allowed { by }
    }

    /// The rate limit denies the call.
    #[must_use]
    pub const fn denied(by: DecidedBy) -> Self {
        Self::Denied { by }
    }

    /// Its name as a label: `hit`, `stale`, `joined`, `computed`, `miss`, `executed`, `replayed`, `duplicate`,
    /// `given_up`, `allowed`, `denied`, `acquired`, `held`, `done`, `failed`, `dropped`, or the
    /// [name of the error's kind](ErrorKind::name).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Joined => "joined",
            Self::Computed => "computed",
            Self::Miss => "miss",
            Self::Executed => "executed",
            Self::Replayed => "replayed",
            Self::Duplicate => "duplicate",
            Self::GivenUp => "given_up",
            Self::Allowed { .. } => "allowed",
            Self::Denied { .. } => "denied",
            Self::Acquired => "acquired",
            Self::Held => "held",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused(kind) => kind.name(),
            Self::Dropped => "dropped",
        }
    }

    /// Where the answer comes from, as a label: `store`, `computed` or `joined` for a value of a cache,
    /// the [name of who decided](DecidedBy::name) for a rate limit, and none for anything else.
    #[must_use]
    pub const fn source(self) -> Option<&'static str> {
        match self {
            Self::Hit | Self::Stale => Some("store"),
            Self::Joined => Some("joined"),
            Self::Computed => Some("computed"),
            Self::Allowed { by } | Self::Denied { by } => Some(by.name()),
            _ => None,
        }
    }
}
