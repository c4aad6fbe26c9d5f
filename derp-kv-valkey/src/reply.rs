//! What the server's answers mean.

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, Expiry, Result};
use redis::{ServerError, Value};
use std::time::Duration;

use crate::address::Address;

/// What an error reply means for the call that got it. None of them executed the command.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The slot lives on another node now.
    Moved(Option<Address>),
    /// This one key may be on another node already.
    Ask(Option<Address>),
    /// The server cannot serve now and will soon: try again.
    Later(Error),
    /// A replica: the primary is elsewhere.
    Replica(Error),
    /// The script is not in the server's cache.
    NoScript,
    /// Trying again cannot help.
    Final(Error),
}

/// Classes an error reply that `from` sent.
pub(crate) fn classify(error: &ServerError, from: &Address) -> Verdict {
    let redirect = || {
        let target = error.details()?.split_ascii_whitespace().nth(1)?;
        Address::parse(target, from)
    };
    match error.code() {
        "MOVED" => Verdict::Moved(redirect()),
        "ASK" => Verdict::Ask(redirect()),
        "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "BUSY" => {
            Verdict::Later(describe(ErrorKind::Unavailable, error))
        }
        "READONLY" => Verdict::Replica(describe(ErrorKind::ReadOnly, error)),
        "NOSCRIPT" => Verdict::NoScript,
        "OOM" => Verdict::Final(describe(ErrorKind::Full, error)),
        "MISCONF" | "NOREPLICAS" => Verdict::Final(describe(ErrorKind::ReadOnly, error)),
        "NOAUTH" | "NOPERM" | "WRONGPASS" => {
            Verdict::Final(describe(ErrorKind::AccessDenied, error))
        }
        _ => Verdict::Final(describe(final_kind(error), error)),
    }
}

fn final_kind(error: &ServerError) -> ErrorKind {
    let details = error.details().unwrap_or_default();
    if details.contains("value is not an integer") || details.contains("would overflow") {
        ErrorKind::NotAnInteger
    } else if details.contains("ACL failure in script") {
        ErrorKind::AccessDenied
    } else if details.starts_with("unknown command") {
        ErrorKind::Unsupported
    } else {
        ErrorKind::Backend
    }
}

/// Whether the server does not know, or does not permit, an optional command.
pub(crate) fn is_unsupported(error: &ServerError) -> bool {
    let details = error.details().unwrap_or_default();
    error.code() == "NOPERM"
        || (error.code() == "ERR"
            && (details.starts_with("unknown command") || details.starts_with("syntax error")))
}

pub(crate) fn describe(kind: ErrorKind, error: &ServerError) -> Error {
    let details = error.details().unwrap_or_default();
    // The server quotes the arguments of a command that it does not know, and tells where in a
    // script an error arose.
    let shown = [", with args beginning with", " script: "]
        .iter()
        .fold(details, |shown, tail| shown.split(tail).next().unwrap_or_default());
    Error::new(kind, format!("the server answered {} {shown}", error.code()))
}

/// An answer of a shape that the command does not have.
pub(crate) fn unexpected() -> Error {
    Error::new(ErrorKind::Backend, "the server's answer has an unexpected shape")
}

pub(crate) fn value(reply: Value) -> Result<Option<Bytes>> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(Bytes::from(bytes))),
        _ => Err(unexpected()),
    }
}

pub(crate) fn integer(reply: &Value) -> Result<i64> {
    match reply {
        Value::Int(number) => Ok(*number),
        _ => Err(unexpected()),
    }
}

/// 1 or `OK` is true; 0 or nil is false.
pub(crate) fn flag(reply: &Value) -> Result<bool> {
    match reply {
        Value::Int(1) | Value::Okay => Ok(true),
        Value::Int(0) | Value::Nil => Ok(false),
        _ => Err(unexpected()),
    }
}

pub(crate) fn ok(reply: &Value) -> Result<()> {
    match reply {
        Value::Okay => Ok(()),
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
