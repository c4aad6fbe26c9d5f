//! What the server's answers mean.

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, Expiry, Result};
use std::time::Duration;

use crate::protocol::reply::Reply;

/// An answer of a shape that the command does not have.
pub(crate) fn unexpected() -> Error {
    Error::new(ErrorKind::Backend, "the server's answer has an unexpected shape")
}

pub(crate) fn value(reply: Reply) -> Result<Option<Bytes>> {
    match reply {
        Reply::Nil => Ok(None),
        Reply::BulkString(bytes) => Ok(Some(bytes)),
        _ => Err(unexpected()),
    }
}

pub(crate) fn integer(reply: &Reply) -> Result<i64> {
    match reply {
        Reply::Int(number) => Ok(*number),
        _ => Err(unexpected()),
    }
}

/// 1 or `OK` is true; 0 or nil is false.
pub(crate) fn flag(reply: Reply) -> Result<bool> {
    match reply {
        Reply::Int(1) | Reply::Okay => Ok(true),
        Reply::Int(0) | Reply::Nil => Ok(false),
        _ => Err(unexpected()),
    }
}

pub(crate) fn ok(reply: Reply) -> Result<()> {
    match reply {
        Reply::Okay => Ok(()),
        _ => Err(unexpected()),
    }
}

/// Reads `PTTL`: -2 is absent, -1 is no expiry. In its last millisecond a key has 0 left, and
/// reports 1: a present key's time is never zero.
pub(crate) fn expiry(pttl: i64) -> Result<Option<Expiry>> {
    match pttl {
        -2 => Ok(None),
        -1 => Ok(Some(Expiry::Never)),
        0.. => Ok(Some(Expiry::In(Duration::from_millis(pttl.max(1).unsigned_abs())))),
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_another_shape_are_errors_and_never_misses() {
        let odd = || Reply::Array(vec![Reply::Int(1)]);
        assert_eq!(value(odd()).unwrap_err().kind(), ErrorKind::Backend);
        assert_eq!(value(Reply::Int(1)).unwrap_err().kind(), ErrorKind::Backend);
        assert_eq!(integer(&Reply::Nil).unwrap_err().kind(), ErrorKind::Backend);
        assert_eq!(flag(Reply::Int(2)).unwrap_err().kind(), ErrorKind::Backend);
        assert_eq!(ok(Reply::Nil).unwrap_err().kind(), ErrorKind::Backend);
        assert_eq!(expiry(-3).unwrap_err().kind(), ErrorKind::Backend);
        assert_eq!(value(Reply::Nil).unwrap(), None);
        assert_eq!(expiry(-2).unwrap(), None);
        assert_eq!(expiry(-1).unwrap(), Some(Expiry::Never));
        assert_eq!(expiry(0).unwrap(), Some(Expiry::In(Duration::from_millis(1))));
    }
}
