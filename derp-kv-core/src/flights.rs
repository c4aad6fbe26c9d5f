use std::fmt;

/// The computations that callers of one store share within the process, by key.
#[derive(Default)]
pub struct Flights {}

impl Flights {
    /// No flights yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}
