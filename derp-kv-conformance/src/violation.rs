use std::any::Any;
use std::fmt;

/// What a law saw that it must not see.
#[derive(Debug)]
pub(crate) struct Violation(String);

impl Violation {
    pub(crate) fn new(observed: impl Into<String>) -> Self {
        Self(observed.into())
    }

    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(message), _) => message,
            (None, Some(message)) => message.as_str(),
            (None, None) => "without a message",
        };
        Self(format!("it panics: {message}"))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<derp_kv_core::Error> for Violation {
    fn from(error: derp_kv_core::Error) -> Self {
        Self(format!("an operation that must succeed failed: {}", with_sources(&error)))
    }
}

impl From<tokio::task::JoinError> for Violation {
    fn from(error: tokio::task::JoinError) -> Self {
        Self(format!("a caller's task ended abnormally: {error}"))
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
