use std::any::Any;
use std::fmt;

use derp_kv_core::ErrorKind;

/// Why a law does not hold, or could not be tried.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    text: String,
}

/// Tells what a law saw from what merely got in its way: only the former is a declared deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The law saw what it must not see.
    Observed,
    /// A call that must succeed failed, or panicked.
    Broken,
    /// A call never returned.
    Hung,
    /// There was no store to test: the harness could not open one, or its profile is wrong.
    NotTried,
    /// The harness cannot do what the law asks for.
    Unproved,
}

impl Violation {
    pub(crate) fn new(observed: impl Into<String>) -> Self {
        Self::of(Kind::Observed, observed)
    }

    pub(crate) fn of(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(message), _) => message,
            (None, Some(message)) => message.as_str(),
            (None, None) => "without a message",
        };
        Self::of(Kind::Broken, format!("it panics: {message}"))
    }

    /// The same, with where it was seen before it.
    pub(crate) fn within(self, place: impl fmt::Display) -> Self {
        Self { text: format!("{place}{}", self.text), ..self }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<derp_kv_core::Error> for Violation {
    fn from(error: derp_kv_core::Error) -> Self {
        // Only these kinds say that the store will never take the call. The others come and go with
        // a network, a disk or a right, so they tell nothing about the law.
        let kind = match error.kind() {
            ErrorKind::Unsupported | ErrorKind::InvalidArgument | ErrorKind::NotAnInteger => {
                Kind::Observed
            }
            _ => Kind::Broken,
        };
        Self::of(kind, format!("an operation that must succeed failed: {}", with_sources(&error)))
    }
}

impl From<tokio::task::JoinError> for Violation {
    fn from(error: tokio::task::JoinError) -> Self {
        if error.is_panic() {
            return Self::panicked(&*error.into_panic());
        }
        Self::of(Kind::Broken, format!("a caller's task ended abnormally: {error}"))
    }
}

/// An error with its chain of causes.
pub(crate) fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns a violation from the law's case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($observed:tt)+) => {
        if !$condition {
            return Err($crate::violation::Violation::new(format!($($observed)+)));
        }
    };
}

/// Returns a violation from the law's case unless both sides are equal; shows them.
macro_rules! ensure_eq {
    ($got:expr, $want:expr, $($what:tt)+) => {{
        let (got, want) = (&$got, &$want);
        if got != want {
            let what = format!($($what)+);
            let (got, want) = ($crate::input::shown(got), $crate::input::shown(want));
            return Err($crate::violation::Violation::new(format!("{what} is {got}, not {want}")));
        }
    }};
}

pub(crate) use {ensure, ensure_eq};
