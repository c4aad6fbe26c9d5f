//! The lock of a computation that failed, left in the store for a while as a sign that nobody is to try.
//!
//! It is the lock's own record with [`MARK`] in front of the token, and expires by itself. Whoever does
//! not know cool-downs takes it for a lock. It is written in the lock's place by `compare_and_set`, so a
//! lock that was lost meanwhile leaves none, and whoever deletes the lock ends it.

use std::time::Duration;

use bytes::Bytes;

/// No token begins with it.
const MARK: u8 = b'!';

/// The record of a cool-down, made of the lock's.
pub(crate) fn record(lock: &[u8]) -> Bytes {
    [&[MARK], lock].concat().into()
}

/// Whether the record of a lock is a cool-down.
pub(crate) fn is_one(record: &[u8]) -> bool {
    record.first() == Some(&MARK)
}

/// When a cool-down is over of which so much is left: the store may keep it for the rest of the
/// millisecond in which it ends.
pub(crate) fn lasts(left: Duration) -> Duration {
    left + Duration::from_millis(1)
}
