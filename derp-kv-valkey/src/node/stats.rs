//! What can be said of a node at any moment.

use std::time::Duration;

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NodeState {
    /// Requests can be sent.
    Connected,
    /// There is no connection, for the first time or since a moment ago: calls wait for one.
    Connecting,
    /// It owes an answer and is silent. Calls wait for it, or for a new connection.
    Silent,
    /// It has been connecting or silent for a whole
    /// [`op_timeout`](crate::ValkeyConfig::op_timeout): calls fail at once.
    FailingFast,
}

impl NodeState {
    /// Its name as a label: `connected`, `connecting`, `silent` or `failing_fast`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Connecting => "connecting",
            Self::Silent => "silent",
            Self::FailingFast => "failing_fast",
        }
    }
}

/// One node, of [`ValkeyStats`](crate::ValkeyStats). With several
/// [`connections`](crate::ValkeyConfig::connections) it is all of them together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStats {
    /// Its address, as the configuration or the cluster calls it, and as the
    /// [events](derp_kv_core::Event::Link) do.
    pub address: String,
    /// How it is; of several connections, how the worst of them is.
    pub state: NodeState,
    /// Requests that were given to a connection and have no answer yet. What waits for its turn, or
    /// for a connection, is not among them.
    pub in_flight: usize,
    /// How many connections have taken the place of an earlier one.
    pub reconnects: u64,
    /// How long requests take from when they are given to a connection to when their answer has been
    /// read, with what the server needs for them: smoothed over requests that are picked from those
    /// of callers, a few each second. None before the first on a new connection; of several
    /// connections, that of the slowest.
    pub round_trip: Option<Duration>,
}

impl NodeStats {
    /// This connection and another one to the same node.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            address: self.address,
            state: self.state.max(other.state),
            in_flight: self.in_flight + other.in_flight,
            reconnects: self.reconnects + other.reconnects,
            round_trip: self.round_trip.max(other.round_trip),
        }
    }
}
