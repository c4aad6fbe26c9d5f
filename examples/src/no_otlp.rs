//! What stands in the place of the spans' sending without the feature `opentelemetry`: a refusal.

use crate::log::Also;

/// There are none.
#[derive(Debug)]
pub enum Spans {}

/// The program is built without what sends spans.
#[derive(Debug, thiserror::Error)]
#[error("this program sends no spans: build it with --features opentelemetry")]
pub struct NoCollector;

impl Spans {
    /// Refuses.
    ///
    /// # Errors
    ///
    /// Always, and says how to build the program.
    pub fn to(_endpoint: &str) -> Result<Self, NoCollector> {
        Err(NoCollector)
    }

    /// What hands the spans over.
    #[must_use]
    pub fn layer(&self) -> Also {
        match *self {}
    }

    /// Sends what is left.
    pub async fn flush(self) {
        match self {}
    }
}
