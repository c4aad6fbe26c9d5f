use std::time::Duration;

use crate::error::ErrorKind;
use crate::observe::call_outcome::CallOutcome;
use crate::observe::link_state::LinkState;
use crate::operation::Operation;

/// What an [`Observer`](crate::Observer) hears. Keys and values are never part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A helper's call has ended. There is exactly one for each call, and of
    /// [`Cache::get_many`](crate::Cache::get_many) one for each key.
    #[non_exhaustive]
    Answered {
        /// The helper.
        operation: Operation,
        /// What the call came to.
        outcome: CallOutcome,
        /// How long it took, from its first poll.
        took: Duration,
    },
    /// A computation of a cached value has ended. A batch is one for each of its keys.
    #[non_exhaustive]
    Computed {
        /// The helper that computed it.
        operation: Operation,
        /// Why it was computed.
        reason: ComputeReason,
        /// Whether there is a value. There is none where the computation failed, panicked, or was
        /// dropped because nobody wanted it any more.
        succeeded: bool,
        /// How long it took.
        took: Duration,
    },
    /// A computed value went to its caller and was not kept, although it should have been.
    #[non_exhaustive]
    NotKept {
        /// The helper that computed it.
        operation: Operation,
        /// Why: what the store said, such as [`Full`](ErrorKind::Full); [`Held`](ErrorKind::Held) where
        /// the lock was not its holder's to the end, as after an invalidation;
        /// [`InvalidArgument`](ErrorKind::InvalidArgument) where the value cannot be encoded.
        kind: ErrorKind,
    },
    /// A cached value could not be decoded, and counts as a miss.
    #[non_exhaustive]
    Undecodable {
        /// The helper that read it.
        operation: Operation,
    },
    /// A refresh came to nothing: its computation failed, panicked, hung until nobody waited for it, or
    /// went away with its caller. Callers get the value that was there, for as long as it lasts.
    #[non_exhaustive]
    RefreshFailed {
        /// The helper that refreshed.
        operation: Operation,
    },
    /// The lease of a lock, of an idempotency key or of an event ended under its holder: its record expired
    /// before a renewal came through, or was removed. The lease of a cache's computation is told as
    /// [`NotKept`](Self::NotKept).
    #[non_exhaustive]
    LeaseLost {
        /// The TTL with which it was taken and renewed.
        ttl: Duration,
    },
    /// The link to a node of the store has changed.
    #[non_exhaustive]
    Link {
        /// The node's address.
        node: &'a str,
        /// What became of it.
        state: LinkState,
    },
    /// Another set of nodes, or another distribution of the keys over them, is in use.
    #[non_exhaustive]
    TopologyChanged {
        /// How many nodes take writes now.
        primaries: usize,
    },
}

/// Why a cached value was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ComputeReason {
    /// There was none.
    Miss,
    /// It was due for a refresh.
    Refresh,
    /// Somebody else had been computing it for too long, or the store failed.
    Beside,
}

impl ComputeReason {
    /// Its name as a label, such as `miss`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Refresh => "refresh",
            Self::Beside => "beside",
        }
    }
}

/// For who writes a backend, or a helper of their own, or tests an observer.
impl<'a> Event<'a> {
    /// A helper's call has ended.
    #[must_use]
    pub const fn answered(operation: Operation, outcome: CallOutcome, took: Duration) -> Self {
        Self::Answered { operation, outcome, took }
    }

    /// A computation of a cached value has ended.
    #[must_use]
    pub const fn computed(
        operation: Operation,
        reason: ComputeReason,
        succeeded: bool,
        took: Duration,
    ) -> Self {
        Self::Computed { operation, reason, succeeded, took }
    }

    /// A computed value was not kept.
    #[must_use]
    pub const fn not_kept(operation: Operation, kind: ErrorKind) -> Self {
        Self::NotKept { operation, kind }
    }

    /// A cached value could not be decoded.
    #[must_use]
    pub const fn undecodable(operation: Operation) -> Self {
        Self::Undecodable { operation }
    }

    /// A refresh came to nothing.
    #[must_use]
    pub const fn refresh_failed(operation: Operation) -> Self {
        Self::RefreshFailed { operation }
    }

    /// A lease ended under its holder.
    #[must_use]
    pub const fn lease_lost(ttl: Duration) -> Self {
        Self::LeaseLost { ttl }
    }

    /// The link to a node has changed.
    #[must_use]
    pub const fn link(node: &'a str, state: LinkState) -> Self {
        Self::Link { node, state }
    }

    /// The topology has changed.
    #[must_use]
    pub const fn topology_changed(primaries: usize) -> Self {
        Self::TopologyChanged { primaries }
    }
}
