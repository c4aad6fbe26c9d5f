//! What the key of a step holds: a head, and then for each limit how it stood at the last write.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | which kind of step wrote it |
//! | 8 | the number of the write, so that no two writes leave the same bytes |
//! | 6 | the TTL that the write gave the key, in milliseconds |
//! | .. | for each limit what its kind keeps |
//!
//! Numbers have their most significant byte first. What is left of the TTL tells how long ago the
//! write was: the store's own clock, and the only one.

use std::ops::Deref;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::store::expiry::Expiry;
use crate::store::inline::Inline;

/// Nanoseconds in a millisecond.
pub(crate) const MILLI: u64 = 1_000_000;

/// What a [`Step`](crate::Step) writes, as bytes. [`Debug`] shows their number only.
#[derive(Clone, Debug)]
pub struct Value(Inline<INLINE>);

/// Room for one limit of either kind.
const INLINE: usize = 288;

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Value {
    /// The head; the limits are pushed behind it.
    pub(crate) fn new(kind: u8, nonce: u64, ttl: u64) -> Self {
        let mut value = Inline::new();
        value.push(&[kind]);
        value.push(&nonce.to_be_bytes());
        let mut value = Self(value);
        value.push::<6>(ttl);
        value
    }

    /// Pushes the lowest `N` bytes of `number`.
    pub(crate) fn push<const N: usize>(&mut self, number: u64) {
        self.0.push(&number.to_be_bytes()[8 - N..]);
    }

    /// Pushes a time in nanoseconds: whole milliseconds, and what is left of one.
    pub(crate) fn push_time(&mut self, nanos: u64) {
        self.push::<6>(nanos / MILLI);
        self.push::<3>(nanos % MILLI);
    }
}

/// What was found, read from the front.
pub(crate) struct Record<'a> {
    /// What no limit has read yet.
    pub(crate) rest: &'a [u8],
    /// How long ago it was written, in nanoseconds.
    pub(crate) age: u64,
    /// How much longer than it was told the store keeps the key: time by which its clock stands still
    /// first, in nanoseconds.
    pub(crate) excess: u64,
}

impl<'a> Record<'a> {
    /// `None` where the key is absent or has no expiry. Without one nobody can tell how long ago it
    /// was written, and it would deny for ever; the next call that is admitted gives it one.
    pub(crate) fn read(kind: u8, seen: Option<(&'a [u8], Expiry)>) -> Result<Option<Self>> {
        let Some((value, expiry)) = seen else { return Ok(None) };
        let mut rest = value;
        if take::<1>(&mut rest)? != u64::from(kind) {
            return Err(corrupt());
        }
        take::<8>(&mut rest)?;
        let ttl = take::<6>(&mut rest)?.saturating_mul(MILLI);
        let Some(left) = expiry.remaining() else { return Ok(None) };
        // A store may keep a key longer than it was told, in whole seconds for example.
        let left = nanos(left);
        let (age, excess) = (ttl.saturating_sub(left), left.saturating_sub(ttl));
        Ok(Some(Self { rest, age, excess }))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<u64> {
        take::<N>(&mut self.rest)
    }

    pub(crate) fn take_time(&mut self) -> Result<u64> {
        let millis = self.take::<6>()?.saturating_mul(MILLI);
        Ok(millis.saturating_add(self.take::<3>()?))
    }

    /// So many bytes as they are.
    pub(crate) fn take_bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or_else(corrupt)?;
        self.rest = rest;
        Ok(bytes)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<u64> {
    let (number, rest) = bytes.split_first_chunk::<N>().ok_or_else(corrupt)?;
    *bytes = rest;
    Ok(number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

pub(crate) fn corrupt() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the key holds what no such limit has written: limits of two kinds need a `key_prefix` each",
    )
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// So many nanoseconds, rounded up to whole milliseconds.
pub(crate) fn in_millis(nanos: u64) -> Duration {
    Duration::from_millis(nanos.div_ceil(MILLI))
}
