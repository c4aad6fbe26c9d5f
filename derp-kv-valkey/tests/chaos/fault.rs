//! The kinds of faults.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillPrimary,
    KillReplica,
    FreezeShort,
    FreezeLong,
    Failover,
    MoveByKey,
    MoveAtOnce,
    Deaf,
    Hole,
    HoleReplies,
    HoleAll,
    Refuse,
    Cut,
    CutAll,
    Pause,
    PauseWrites,
    KillClients,
}

impl Fault {
    /// Those that the server can make.
    pub(crate) fn all(is_9: bool) -> Vec<Self> {
        use Fault::*;
        let mut all = vec![
            KillPrimary,
            KillReplica,
            FreezeShort,
            FreezeLong,
            Failover,
            MoveByKey,
            Hole,
            HoleReplies,
            HoleAll,
            Refuse,
            Cut,
            CutAll,
            Pause,
            PauseWrites,
            KillClients,
        ];
        if is_9 {
            all.extend([MoveAtOnce, Deaf]);
        }
        all
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillPrimary => "kill -9 of a primary",
            Self::KillReplica => "kill -9 of a replica",
            Self::FreezeShort => "SIGSTOP of a primary, short",
            Self::FreezeLong => "SIGSTOP of a primary, replica promoted",
            Self::Failover => "CLUSTER FAILOVER",
            Self::MoveByKey => "slots moved key by key",
            Self::MoveAtOnce => "slots moved at once",
            Self::Deaf => "partition of a primary from the nodes",
            Self::Hole => "black hole before a primary",
            Self::HoleReplies => "black hole behind a primary",
            Self::HoleAll => "black hole before all nodes",
            Self::Refuse => "primary refuses connections",
            Self::Cut => "connections of a primary cut",
            Self::CutAll => "connections of all nodes cut",
            Self::Pause => "CLIENT PAUSE ALL",
            Self::PauseWrites => "CLIENT PAUSE WRITE",
            Self::KillClients => "CLIENT KILL",
        }
    }
}
