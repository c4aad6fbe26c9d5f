//! What each call makes of one key, where no TTL passes meanwhile.

use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Counter, ErrorKind, Expiry, KvStore};

use crate::history::{Answer, Op};
use crate::input::Blob;
use crate::laws::fits;
use crate::violation::Violation;

/// The value of a key, and the TTL of the write that it is from, which is none or a long one.
pub(super) type State = Option<(Blob, Option<Duration>)>;

/// Whether a store that answered so has the key in that state.
pub(super) fn is(state: &State, found: &Option<(Bytes, Expiry)>) -> bool {
    match (state, found) {
        (None, None) => true,
        (Some((value, ttl)), Some((found, expiry))) => **value == **found && fits(*expiry, *ttl),
        _ => false,
    }
}

/// The key after the call.
pub(super) fn after(op: &Op, before: &State) -> State {
    let value = before.as_ref().map(|(value, _)| value);
    match op {
        Op::Set(_, value, ttl) => Some((value.clone(), *ttl)),
        Op::Mset(items, ttl) => items.last().map(|(_, value)| (value.clone(), *ttl)),
        Op::Delete(_) | Op::DeleteMany(_) => None,
        Op::Expire(_, ttl) => value.map(|value| (value.clone(), Some(*ttl))),
        Op::SetNx(_, value, ttl) => before.clone().or_else(|| Some((value.clone(), *ttl))),
        Op::Incr(_, by, ttl) => match before {
            None => Some((Blob(by.to_string().into_bytes()), *ttl)),
            Some((value, ttl)) => match Counter::parse(value) {
                Ok(count) => Some((Blob((count + by).to_string().into_bytes()), *ttl)),
                Err(_) => before.clone(),
            },
        },
        Op::CompareAndSet { expected, value: new, ttl, .. } if value == Some(expected) => {
            Some((new.clone(), *ttl))
        }
        Op::CompareAndDelete { expected, .. } if value == Some(expected) => None,
        _ => before.clone(),
    }
}

/// Whether the call may answer so where the key is in that state.
pub(super) fn may_answer(op: &Op, before: &State, answer: &Answer) -> bool {
    let value = before.as_ref().map(|(value, _)| value);
    let there = value.is_some();
    let dated = |expiry: Expiry| before.as_ref().is_some_and(|(_, ttl)| fits(expiry, *ttl));
    match (op, answer) {
        (Op::Get(_), Answer::Value(found)) => found.as_ref() == value,
        (Op::GetWithTtl(_), Answer::Dated(found)) => match found {
            Some((found, expiry)) => Some(found) == value && dated(*expiry),
            None => !there,
        },
        (Op::Ttl(_), Answer::Expiry(found)) => found.map_or(!there, dated),
        (Op::Exists(_) | Op::Delete(_) | Op::Expire(..), Answer::Flag(flag)) => *flag == there,
        (Op::SetNx(..), Answer::Flag(flag)) => *flag != there,
        (
            Op::CompareAndSet { expected, .. } | Op::CompareAndDelete { expected, .. },
            Answer::Flag(flag),
        ) => *flag == (value == Some(expected)),
        (Op::Mget(keys), Answer::Values(found)) => {
            found.len() == keys.len() && found.iter().all(|found| found.as_ref() == value)
        }
        (Op::Scan(key), Answer::Keys(found)) => {
            found.len() == usize::from(there) && found.contains(key) == there
        }
        (Op::DeleteMany(_), Answer::Count(count)) => *count == u64::from(there),
        (Op::Set(..) | Op::Mset(..), Answer::Done) => true,
        (Op::Incr(..), Answer::Counter(sum, expiry)) => match after(op, before) {
            Some((value, ttl)) => *value == *sum.to_string().as_bytes() && fits(*expiry, ttl),
            None => false,
        },
        (Op::Incr(..), Answer::Refused(ErrorKind::NotAnInteger)) => {
            value.is_some_and(|value| Counter::parse(value).is_err())
        }
        _ => false,
    }
}

/// How many of [`Call::all`] only read: the first of them.
pub(super) const READS: usize = 6;

/// A call of one key, without the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Get,
    GetWithTtl,
    Exists,
    Ttl,
    Mget,
    Scan,
    Set(&'static [u8], Option<Duration>),
    Mset(&'static [u8], Option<Duration>),
    Delete,
    DeleteMany,
    Expire(Duration),
    SetNx(&'static [u8], Option<Duration>),
    Incr(i64, Option<Duration>),
    CompareAndSet(&'static [u8], &'static [u8], Option<Duration>),
    CompareAndDelete(&'static [u8]),
}

impl Call {
    /// Every call once, with the value `"1"` to be expected.
    pub(super) fn all(ttl: Option<Duration>) -> [Self; 15] {
        [
            Self::Get,
            Self::GetWithTtl,
            Self::Exists,
            Self::Ttl,
            Self::Mget,
            Self::Scan,
            Self::Set(b"2", ttl),
            Self::Mset(b"2", ttl),
            Self::Delete,
            Self::DeleteMany,
            Self::Expire(ttl.unwrap_or(Duration::from_secs(24 * 60 * 60))),
            Self::SetNx(b"2", ttl),
            Self::Incr(1, ttl),
            Self::CompareAndSet(b"1", b"2", ttl),
            Self::CompareAndDelete(b"1"),
        ]
    }

    /// The call of `key`, and of one more key where it takes several.
    pub(super) fn of(self, key: &[u8]) -> Op {
        let key = Blob::from(key);
        let another = || Blob([&key[..], b"/another"].concat());
        match self {
            Self::Get => Op::Get(key),
            Self::GetWithTtl => Op::GetWithTtl(key),
            Self::Exists => Op::Exists(key),
            Self::Ttl => Op::Ttl(key),
            Self::Mget => Op::Mget(vec![key.clone(), key]),
            Self::Scan => Op::Scan(key),
            Self::Set(value, ttl) => Op::Set(key, Blob::from(value), ttl),
            Self::Mset(value, ttl) => {
                // The other key is no other's prefix: scans look for one key.
                let another = Blob([b"another/", &key[..]].concat());
                let value = Blob::from(value);
                Op::Mset(vec![(another, value.clone()), (key, value)], ttl)
            }
            Self::Delete => Op::Delete(key),
            Self::DeleteMany => Op::DeleteMany(vec![another(), key.clone(), key]),
            Self::Expire(ttl) => Op::Expire(key, ttl),
            Self::SetNx(value, ttl) => Op::SetNx(key, Blob::from(value), ttl),
            Self::Incr(by, ttl) => Op::Incr(key, by, ttl),
            Self::CompareAndSet(expected, value, ttl) => Op::CompareAndSet {
                key,
                expected: Blob::from(expected),
                value: Blob::from(value),
                ttl,
            },
            Self::CompareAndDelete(expected) => {
                Op::CompareAndDelete { key, expected: Blob::from(expected) }
            }
        }
    }
}

/// Makes the call and checks its answer. It is the state afterwards that is returned.
pub(super) async fn checked(
    kv: &impl KvStore,
    op: &Op,
    before: &[State],
) -> Result<Vec<State>, Violation> {
    let answer = crate::history::call(kv, b"", op).await;
    let answer = answer.ok_or_else(|| Violation::new(format!("{op:?} is no call")))?;
    let fitting = before.iter().filter(|before| may_answer(op, before, &answer));
    let states: Vec<_> = fitting.map(|before| after(op, before)).collect();
    if states.is_empty() {
        return Err(Violation::new(format!(
            "{op:?} answered {answer:?}, on a key that may be {before:?}"
        )));
    }
    Ok(states)
}
