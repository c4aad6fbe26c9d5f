//! Why a server cannot be used.

use std::io;
use std::sync::Arc;

use derp_kv_core::{Error, ErrorKind};

use crate::address::Address;

/// Why no connection could be had. Nothing was sent.
///
/// It is cloned to every caller that waits for the same connection.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    message: String,
    source: Option<Arc<io::Error>>,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, address: &Address, message: &str) -> Self {
        Self { kind, message: format!("{address}: {message}"), source: None }
    }

    pub(crate) fn unavailable(address: &Address, message: &str) -> Self {
        Self::new(ErrorKind::Unavailable, address, message)
    }

    pub(crate) fn tls(address: &Address, message: &str) -> Self {
        Self::new(ErrorKind::InvalidArgument, address, message)
    }

    pub(crate) fn config(address: &Address, error: &Error) -> Self {
        Self { kind: error.kind(), message: format!("{address}: {error}"), source: None }
    }

    pub(crate) fn io(address: &Address, message: &str, error: io::Error) -> Self {
        Self {
            kind: ErrorKind::Unavailable,
            message: format!("{address}: {message}"),
            source: Some(Arc::new(error)),
        }
    }

    /// Nobody listens there: whatever ran there is gone.
    pub(crate) fn is_refusal(&self) -> bool {
        self.source.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    pub(crate) fn into_error(self) -> Error {
        let error = Error::new(self.kind, self.message);
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}
