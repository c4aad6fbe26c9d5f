//! What a failure of PostgreSQL means to a caller.

use std::error::Error as _;
use std::io;

use derp_kv_core::{Error, ErrorKind};
use tokio_postgres::error::SqlState;

/// The error of a statement that was sent. `writes`: what it did is unknown where the answer is lost.
///
/// The server's words are kept out of it: they may quote a value.
pub(super) fn failed(error: tokio_postgres::Error, writes: bool) -> Error {
    match error.code().cloned() {
        Some(code) => refused(&code, writes),
        None if let Some(refused) = settings(&error) => refused,
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

/// What is wrong with the settings of a connection, which the client finds out by itself. Nothing was
/// sent then. The client tells its kinds of errors apart in their words only.
fn settings(error: &tokio_postgres::Error) -> Option<Error> {
    use ErrorKind::{AccessDenied, InvalidArgument, Unsupported};
    let source = error.source().map(ToString::to_string);
    let (kind, what) = match (error.to_string().as_str(), source.as_deref()) {
        ("invalid configuration", Some("password missing")) => {
            (AccessDenied, "PostgreSQL asks for a password, and the settings have none")
        }
        ("invalid configuration", _) => {
            (InvalidArgument, "the settings name no host, or not as many ports as hosts")
        }
        ("error performing TLS handshake", _) => {
            (Unsupported, "the settings demand TLS, which this store does not speak")
        }
        ("authentication error", _) => {
            (AccessDenied, "PostgreSQL asks for a proof of identity that cannot be given")
        }
        _ => return None,
    };
    Some(Error::new(kind, what))
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
        "57P03" => (Unavailable, "PostgreSQL does not take connections yet, or no more"),
        code if code.starts_with("57P") => (Unavailable, "PostgreSQL ended the session"),
        code if code.starts_with("28") => (AccessDenied, "PostgreSQL refuses these credentials"),
        code if code.starts_with("08") => (Unavailable, "the connection to PostgreSQL failed"),
        _ => (Backend, "PostgreSQL refused the statement"),
    };
    // A session that is ended may have committed just before. Without a session nothing was sent.
    let ended = code.code().starts_with("57P") && code.code() != "57P03";
    let unknown = ended || code.code().starts_with("08");
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
