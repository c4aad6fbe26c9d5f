use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::operation::Operation;

/// The result of every store operation and helper.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in terms of what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument can never be accepted: a TTL of zero, an id that is too long. Fix the call.
    InvalidArgument,
    /// The value is not a decimal `i64`, or the increment would leave its range.
    NotAnInteger,
    /// The store cannot be reached, or cannot serve now.
    Unavailable,
    /// The store did not answer before the operation's deadline.
    Timeout,
    /// The store refuses these credentials, or this user may not do this.
    AccessDenied,
    /// The store takes no writes now: a replica, or a server that cannot persist.
    ReadOnly,
    /// The store has no room for the write.
    Full,
    /// Another caller runs this idempotency key now; try again after
    /// [`retry_after`](Error::retry_after) (HTTP 409).
    InProgress,
    /// Somebody else holds the lock; the one who waited for it may try again after
    /// [`retry_after`](Error::retry_after).
    Held,
    /// The computation behind the key failed a moment ago, for another caller;
    /// [`retry_after`](Error::retry_after) says when it is tried again.
    Failing,
    /// This idempotency key was used for another request (HTTP 422).
    KeyReused,
    /// The work behind this idempotency key is done, and its answer was not kept: it cannot be
    /// replayed, or the store did not take it. The work does not run again while the key's record
    /// lives, and each call with the key gets this error, with the
    /// [`status_code`](Error::status_code) of the answer. What the work did must be looked up where
    /// it did it; with another key it would be done twice.
    NotKept,
    /// The one who did the work on the caller's behalf went away without a result, and the work
    /// was not taken over. Of an idempotency key whose attempts are
    /// [rejected](crate::OnAbandoned::Reject) then, it is not transient: nobody knows what the attempt
    /// has done, and the work does not run again before somebody forgets it (HTTP 409).
    Abandoned,
    /// A stored record cannot be decoded. It is left as it is.
    Corrupt,
    /// The backend does not offer this operation.
    Unsupported,
    /// Anything else the backend reports.
    Backend,
}

impl ErrorKind {
    /// Its name as a label in metrics and traces, such as `in_progress`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::NotAnInteger => "not_an_integer",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::AccessDenied => "access_denied",
            Self::ReadOnly => "read_only",
            Self::Full => "full",
            Self::InProgress => "in_progress",
            Self::Held => "held",
            Self::Failing => "failing",
            Self::KeyReused => "key_reused",
            Self::NotKept => "not_kept",
            Self::Abandoned => "abandoned",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Backend => "backend",
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid argument",
            Self::NotAnInteger => "not an integer",
            Self::Unavailable => "store unavailable",
            Self::Timeout => "timed out",
            Self::AccessDenied => "access denied",
            Self::ReadOnly => "store is read-only",
            Self::Full => "store is full",
            Self::InProgress => "in progress",
            Self::Held => "lock held",
            Self::Failing => "failing",
            Self::KeyReused => "idempotency key reused",
            Self::NotKept => "answer not kept",
            Self::Abandoned => "abandoned",
            Self::Corrupt => "corrupt record",
            Self::Unsupported => "unsupported",
            Self::Backend => "backend error",
        }
    }

    fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::Timeout
                | Self::InProgress
                | Self::Held
                | Self::Failing
                | Self::Abandoned
        )
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

/// A failed operation.
///
/// The type is opaque: ask it for its [`kind`](Self::kind), whether the same call may succeed
/// later ([`is_transient`](Self::is_transient)) and whether a write may have happened all the
/// same ([`may_have_applied`](Self::may_have_applied)). What is printed never holds a key's
/// value or a secret, and does not repeat the [`source`](StdError::source).
///
/// # Examples
///
/// ```
/// use derp_kv_core::{Error, ErrorKind, Operation};
///
/// let error = Error::new(ErrorKind::Timeout, "no answer within 2s")
///     .with_operation(Operation::Incr)
///     .with_may_have_applied(true);
/// assert_eq!(error.kind(), ErrorKind::Timeout);
/// assert!(error.is_transient() && error.may_have_applied());
/// assert_eq!(error.to_string(), "incr: timed out: no answer within 2s (the write may have been applied)");
/// ```
// Boxed: `Result<Option<Bytes>>` stays small on the path without errors.
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    operation: Option<Operation>,
    message: Cow<'static, str>,
    transient: Option<bool>,
    may_have_applied: bool,
    retry_after: Option<Duration>,
    status_code: Option<u16>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` names what is wrong, without values or secrets.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: None,
            message: message.into(),
            transient: None,
            may_have_applied: false,
            retry_after: None,
            status_code: None,
            source: None,
        }))
    }

    /// Names the operation that failed; the first one given stays.
    #[must_use]
    pub fn with_operation(mut self, operation: Operation) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts `context` before the message, for example how far a batch came. Kind, cause and flags
    /// stay.
    ///
    /// ```
    /// use derp_kv_core::{Error, ErrorKind};
    ///
    /// let error = Error::new(ErrorKind::Full, "no memory left").with_context("2 of 3 keys done");
    /// assert_eq!(error.to_string(), "store is full: 2 of 3 keys done: no memory left");
    /// ```
    #[must_use]
    pub fn with_context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message).into();
        self
    }

    /// Says whether the write may have been applied although the call failed.
    #[must_use]
    pub fn with_may_have_applied(mut self, may_have_applied: bool) -> Self {
        self.0.may_have_applied = may_have_applied;
        self
    }

    /// Overrides whether the same call may succeed later.
    #[must_use]
    pub fn with_transient(mut self, transient: bool) -> Self {
        self.0.transient = Some(transient);
        self
    }

    /// Sets how long to wait before the next try.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.0.retry_after = Some(retry_after);
        self
    }

    /// Sets the status code of the answer that the caller does not get.
    #[must_use]
    pub fn with_status_code(mut self, status_code: u16) -> Self {
        self.0.status_code = Some(status_code);
        self
    }

    /// The same for another caller who waited for the same answer; the source stays here.
    pub(crate) fn copy(&self) -> Self {
        let inner = &*self.0;
        Self(Box::new(Inner { message: inner.message.clone(), source: None, ..*inner }))
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed, where it is known: the primitive, or the helper that refused the
    /// call.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        self.0.operation
    }

    /// Whether the same call may succeed later without anybody mending anything.
    ///
    /// By default true for [`Unavailable`](ErrorKind::Unavailable),
    /// [`Timeout`](ErrorKind::Timeout), [`InProgress`](ErrorKind::InProgress),
    /// [`Held`](ErrorKind::Held), [`Failing`](ErrorKind::Failing) and
    /// [`Abandoned`](ErrorKind::Abandoned).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.0.transient.unwrap_or_else(|| self.0.kind.is_transient())
    }

    /// Whether the write may have been applied although the call failed.
    ///
    /// `false` is a promise: nothing was written. `true` means nobody knows: the answer was lost
    /// after the request had left, or a batch was cut in its middle. With
    /// [`NotKept`](ErrorKind::NotKept) it is certain: the work is done.
    #[must_use]
    pub fn may_have_applied(&self) -> bool {
        self.0.may_have_applied
    }

    /// How long to wait before the next try, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The status code of an answer that was [not kept](ErrorKind::NotKept): what the work came
    /// to, where its body is lost. `None` for errors of every other kind.
    #[must_use]
    pub fn status_code(&self) -> Option<u16> {
        self.0.status_code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(operation) = inner.operation {
            write!(f, "{operation}: ")?;
        }
        write!(f, "{}: {}", inner.kind, inner.message)?;
        if inner.may_have_applied {
            f.write_str(" (the write may have been applied)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("operation", &inner.operation)
            .field("message", &inner.message)
            .field("transient", &self.is_transient())
            .field("may_have_applied", &inner.may_have_applied)
            .field("retry_after", &inner.retry_after)
            .field("status_code", &inner.status_code)
            .field("source", &inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_does_not_repeat_the_source() {
        let error = Error::new(ErrorKind::Backend, "the disk said no")
            .with_source(std::io::Error::other("sector 7"));
        assert_eq!(error.to_string(), "backend error: the disk said no");
        assert_eq!(error.source().unwrap().to_string(), "sector 7");
    }

    #[test]
    fn the_first_operation_stays() {
        let error = Error::new(ErrorKind::Full, "full")
            .with_operation(Operation::Set)
            .with_operation(Operation::GuardedGet);
        assert_eq!(error.operation(), Some(Operation::Set));
    }

    #[test]
    fn kinds_decide_transience_unless_told_otherwise() {
        assert!(Error::new(ErrorKind::Unavailable, "x").is_transient());
        assert!(!Error::new(ErrorKind::Full, "x").is_transient());
        assert!(Error::new(ErrorKind::Full, "x").with_transient(true).is_transient());
    }
}
