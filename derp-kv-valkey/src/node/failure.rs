//! Why a server cannot be used.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use derp_kv_core::{Error, ErrorKind};

use crate::address::Address;

/// Why no connection could be had. Nothing was sent.
///
/// It is cloned to every caller that waits for the same connection.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    /// The server, as the configuration or the cluster calls it.
    place: String,
    message: String,
    source: Option<Arc<io::Error>>,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, address: &Address, message: impl Into<String>) -> Self {
        Self { kind, place: address.to_string(), message: message.into(), source: None }
    }

    pub(crate) fn unavailable(address: &Address, message: &str) -> Self {
        Self::new(ErrorKind::Unavailable, address, message)
    }

    pub(crate) fn tls(address: &Address, message: &str) -> Self {
        Self::new(ErrorKind::InvalidArgument, address, message)
    }

    pub(crate) fn config(address: &Address, error: &Error) -> Self {
        Self::new(error.kind(), address, error.to_string())
    }

    pub(crate) fn io(address: &Address, message: &str, error: impl Into<Arc<io::Error>>) -> Self {
        Self { source: Some(error.into()), ..Self::unavailable(address, message) }
    }

    /// Names the one of the host's addresses that it is about.
    pub(crate) fn at(mut self, ip: IpAddr) -> Self {
        self.place = format!("{} ({ip})", self.place);
        self
    }

    /// The same as what has been so for long: whatever kept the last attempt from ending, the
    /// server is not available.
    pub(crate) fn lasting(mut self) -> Self {
        if self.kind == ErrorKind::Timeout {
            self.kind = ErrorKind::Unavailable;
        }
        self
    }

    /// Nobody listens there: whatever ran there is gone.
    pub(crate) fn is_refusal(&self) -> bool {
        self.source.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Of the failures of several addresses the one that tells most is reported: that of a server
    /// that answered before one that nobody knows anything of, and a refused connection last, as
    /// it says that nothing runs there at all.
    pub(crate) fn tells_more_than(&self, other: &Self) -> bool {
        let rank = |failure: &Self| match failure.kind {
            ErrorKind::Unavailable | ErrorKind::Timeout => u8::from(!failure.is_refusal()),
            _ => 2,
        };
        rank(self) > rank(other)
    }

    pub(crate) fn into_error(self) -> Error {
        let error = Error::new(self.kind, format!("{}: {}", self.place, self.message));
        // A replica may be made a primary, and an address may lead to one soon.
        let error = match self.kind {
            ErrorKind::ReadOnly => error.with_transient(true),
            _ => error,
        };
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

/// Why a request that was sent has no answer.
pub(crate) fn lost(address: &Address) -> Error {
    let message = format!("{address}: the connection ended before the answer came");
    Error::new(ErrorKind::Unavailable, message)
}

/// Why a request has an answer that nobody can read. Sent again, it would get the same.
pub(crate) fn broken(address: &Address, reason: &str) -> Error {
    Error::new(ErrorKind::Backend, format!("{address}: the answer cannot be read: {reason}"))
}
