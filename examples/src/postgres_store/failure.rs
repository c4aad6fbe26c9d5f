//! What a failure of PostgreSQL means to a caller.

use std::io;

use derp_kv_core::{Error, ErrorKind};
use tokio_postgres::error::SqlState;

/// The error of a statement that was sent. `writes`: what it did is unknown where the answer is lost.
///
/// The server's words are kept out of it: they may quote a value.
pub(super) fn failed(error: tokio_postgres::Error, writes: bool) -> Error {
    match error.code().cloned() {
        Some(code) => refused(&code, writes),
        None => {
            let lost = unavailable("the connection to PostgreSQL failed or was lost", writes);
            // Of the sources only this one is known to quote nothing.
            match error.into_source().map(|source| source.downcast::<io::Error>()) {
                Some(Ok(source)) => lost.with_source(source),
                Some(Err(_)) | None => lost,
            }
        }
    }
}

/// What the server answered. A statement that it refuses is undone, so nothing of it was applied.
fn refused(code: &SqlState, writes: bool) -> Error {
    use ErrorKind::{AccessDenied, Backend, Full, InvalidArgument, ReadOnly, Timeout, Unavailable};
    let (kind, what) = match code.code() {
        "25006" => (ReadOnly, "PostgreSQL is read-only: a standby, or set so"),
        "42501" => (AccessDenied, "this user may not do this"),
        "53100" => (Full, "the disk of PostgreSQL is full"),
        "53200" | "53300" => (Unavailable, "PostgreSQL has no memory or no connection to spare"),
        "40001" | "40P01" => (Unavailable, "PostgreSQL undid the statement because of others"),
        "54000" => (InvalidArgument, "a key or value is too large for PostgreSQL"),
        // Its time is up, or it waited too long for a lock.
        "57014" | "55P03" => (Timeout, "PostgreSQL gave the statement up, and undid it"),
        "57P01" | "57P02" | "57P03" => (Unavailable, "PostgreSQL is starting or ending"),
        code if code.starts_with("28") => (AccessDenied, "PostgreSQL refuses these credentials"),
        code if code.starts_with("08") => (Unavailable, "the connection to PostgreSQL failed"),
        _ => (Backend, "PostgreSQL refused the statement"),
    };
    // A session that is ended may have committed just before.
    let unknown = matches!(code.code(), "57P01" | "57P02") || code.code().starts_with("08");
    Error::new(kind, format!("{what} (SQLSTATE {})", code.code()))
        .with_may_have_applied(writes && unknown)
}

pub(super) fn unavailable(what: &'static str, writes: bool) -> Error {
    Error::new(ErrorKind::Unavailable, what).with_may_have_applied(writes)
}

/// No word from the server in all the time that was given.
pub(super) fn too_late(writes: bool) -> Error {
    Error::new(ErrorKind::Timeout, "PostgreSQL did not answer in time")
        .with_may_have_applied(writes)
}
