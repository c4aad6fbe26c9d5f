//! Every kind of change of a key that a waiter may wait for.

use std::time::Duration;

use derp_kv_core::KvStore;

use crate::violation::Violation;

/// How soon a key ends that a change lets end.
pub(super) const SOON: Duration = Duration::from_millis(40);

/// The TTL of a key whose own end is the change: its waiters are asleep before.
pub(super) const OWN_TTL: Duration = Duration::from_millis(700);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the key is when its waiters fall asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Absent,
    /// It was there, and its TTL has passed.
    Expired,
    Present,
    /// It is there, with a TTL of a day.
    Dated,
    /// It is there, with a TTL that is about to pass, given by this call.
    Ending(Giver),
}

/// A call that gives a TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Giver {
    Set,
    Mset,
    SetNx,
    Incr,
    CompareAndSet,
    Expire,
}

const GIVERS: [Giver; 6] =
    [Giver::Set, Giver::Mset, Giver::SetNx, Giver::Incr, Giver::CompareAndSet, Giver::Expire];

impl Giver {
    /// Brings the key to hold `b"1"` until [`OWN_TTL`] has passed.
    async fn give(self, kv: &impl KvStore, key: &[u8]) -> Result<(), Violation> {
        let ttl = Some(OWN_TTL);
        match self {
            Self::Set => kv.set(key, b"1", ttl).await?,
            Self::Mset => kv.mset(&[(key, b"1")], ttl).await?,
            Self::SetNx => drop(kv.set_nx(key, b"1", ttl).await?),
            Self::Incr => drop(kv.incr(key, 1, ttl).await?),
            Self::CompareAndSet => {
                kv.set(key, b"0", None).await?;
                kv.compare_and_set(key, b"0", b"1", ttl).await?;
            }
            Self::Expire => {
                kv.set(key, b"1", None).await?;
                kv.expire(key, OWN_TTL).await?;
            }
        }
        Ok(())
    }
}

/// What then happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Set,
    SetEmpty,
    SetDated,
    Mset,
    /// It is the last key of a batch.
    MsetMany,
    SetNx,
    Incr,
    CompareAndSet,
    Delete,
    DeleteMany,
    /// It is the last key of a batch.
    DeleteManyMany,
    CompareAndDelete,
    /// `expire`, and then the end of the TTL that it gave.
    Expire,
    /// `set` of the same value with a TTL, and then the end of that.
    SetSame,
    MsetSame,
    CompareAndSetSame,
    /// The TTL that the key has passes, and nothing else happens.
    End,
}

/// A change on a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) before: Before,
    pub(super) change: Change,
}

impl Before {
    fn changes(self) -> &'static [Change] {
        use Change::*;
        match self {
            Self::Absent => &[Set, SetEmpty, SetDated, Mset, MsetMany, SetNx, Incr],
            Self::Expired => &[Set, SetNx, Incr],
            Self::Present => &[
                Set,
                SetEmpty,
                SetDated,
                Mset,
                MsetMany,
                Incr,
                CompareAndSet,
                Delete,
                DeleteMany,
                DeleteManyMany,
                CompareAndDelete,
                SetSame,
                MsetSame,
                CompareAndSetSame,
                Expire,
            ],
            Self::Dated => &[Set, Incr, Delete, CompareAndDelete, SetSame, Expire],
            Self::Ending(_) => &[End],
        }
    }

    /// What a waiter has seen of it.
    pub(super) fn seen(self) -> Option<&'static [u8]> {
        match self {
            Self::Absent | Self::Expired => None,
            Self::Present | Self::Dated | Self::Ending(_) => Some(b"1"),
        }
    }
}

impl Kind {
    /// All kinds: those that show at once first, and those that show when a TTL has passed last.
    ///
    /// A store that wakes all waiters on any change has each of them look again. What a kind leaves
    /// unsaid is then said by the change after it, unless the kind shows before that is made.
    pub(super) fn all() -> Vec<Self> {
        let before = [Before::Absent, Before::Expired, Before::Present, Before::Dated];
        let before = before.into_iter().chain(GIVERS.map(Before::Ending));
        let kinds =
            |before: Before| before.changes().iter().map(move |&change| Self { before, change });
        let mut kinds: Vec<_> = before.flat_map(kinds).collect();
        kinds.sort_by_key(|kind| kind.shows_late());
        kinds
    }

    /// Whether the value differs only once a TTL has passed.
    pub(super) fn shows_late(self) -> bool {
        use Change::*;
        matches!(self.change, Expire | SetSame | MsetSame | CompareAndSetSame | End)
    }

    /// Brings the key to where its waiters find it. A TTL that has to pass before that is short.
    pub(super) async fn prepare(self, kv: &impl KvStore, key: &[u8]) -> Result<(), Violation> {
        match self.before {
            Before::Absent => {}
            Before::Expired => kv.set(key, b"1", Some(Duration::from_millis(1))).await?,
            Before::Present => kv.set(key, b"1", None).await?,
            Before::Dated => kv.set(key, b"1", Some(DAY)).await?,
            Before::Ending(giver) => giver.give(kv, key).await?,
        }
        Ok(())
    }

    pub(super) async fn make(self, kv: &impl KvStore, key: &[u8]) -> Result<(), Violation> {
        let others: Vec<_> = (0..3).map(|n| [key, format!("/{n}").as_bytes()].concat()).collect();
        match self.change {
            Change::Set => kv.set(key, b"8", None).await?,
            Change::SetEmpty => kv.set(key, b"", None).await?,
            Change::SetDated => kv.set(key, b"8", Some(DAY)).await?,
            Change::Mset => kv.mset(&[(key, b"8")], None).await?,
            Change::MsetMany => {
                let mut items: Vec<(&[u8], &[u8])> =
                    others.iter().map(|other| (&other[..], &b"8"[..])).collect();
                items.push((key, b"8"));
                kv.mset(&items, None).await?;
            }
            Change::SetNx => drop(kv.set_nx(key, b"8", None).await?),
            Change::Incr => drop(kv.incr(key, 7, None).await?),
            Change::CompareAndSet => drop(kv.compare_and_set(key, b"1", b"8", None).await?),
            Change::Delete => drop(kv.delete(key).await?),
            Change::DeleteMany => drop(kv.delete_many(&[key]).await?),
            Change::DeleteManyMany => {
                let mut keys: Vec<_> = others.iter().map(Vec::as_slice).collect();
                keys.push(key);
                kv.delete_many(&keys).await?;
            }
            Change::CompareAndDelete => drop(kv.compare_and_delete(key, b"1").await?),
            Change::Expire => drop(kv.expire(key, SOON).await?),
            Change::SetSame => kv.set(key, b"1", Some(SOON)).await?,
            Change::MsetSame => kv.mset(&[(key, b"1")], Some(SOON)).await?,
            Change::CompareAndSetSame => {
                kv.compare_and_set(key, b"1", b"1", Some(SOON)).await?;
            }
            Change::End => {}
        }
        Ok(())
    }
}
