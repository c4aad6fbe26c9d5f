use crate::error::{Error, ErrorKind};
use crate::observe::call_outcome::CallOutcome;

/// An error on its way to a helper's caller, of whose own error type nothing is known.
pub(crate) enum Raised<E> {
    /// The library's, or the store's.
    Ours(Error),
    /// That of the caller's own code.
    Theirs(E),
}

impl<E> From<Error> for Raised<E> {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl<E: From<Error>> Raised<E> {
    /// The error as the caller gets it.
    pub(crate) fn into_inner(self) -> E {
        match self {
            Self::Ours(error) => error.into(),
            Self::Theirs(error) => error,
        }
    }
}

/// An error that says what the call came to.
pub(crate) trait Failure {
    fn outcome(&self) -> CallOutcome;
}

impl Failure for Error {
    fn outcome(&self) -> CallOutcome {
        match self.kind() {
            // That a lock is somebody else's is an answer.
            ErrorKind::Held => CallOutcome::Held,
            kind => CallOutcome::Refused(kind),
        }
    }
}

impl<E> Failure for Raised<E> {
    fn outcome(&self) -> CallOutcome {
        match self {
            Self::Ours(error) => error.outcome(),
            Self::Theirs(_) => CallOutcome::Failed,
        }
    }
}
