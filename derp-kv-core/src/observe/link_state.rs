use std::time::Duration;

/// What became of a backend's link to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkState {
    /// The node is connected for the first time.
    Connected,
    /// There is no connection any more, or the node is silent although it owes an answer.
    Lost,
    /// The node has not been there for so long that calls fail at once, without waiting for it.
    FailingFast,
    /// The node answers again, and no call fails at once any more.
    #[non_exhaustive]
    Back {
        /// How long it was not there.
        after: Duration,
    },
    /// The node is no longer a part of the store.
    Removed,
}

impl LinkState {
    /// The node answers again, after so long.
    #[must_use]
    pub const fn back(after: Duration) -> Self {
        Self::Back { after }
    }

    /// Its name as a label, such as `lost`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Lost => "lost",
            Self::FailingFast => "failing_fast",
            Self::Back { .. } => "back",
            Self::Removed => "removed",
        }
    }
}
