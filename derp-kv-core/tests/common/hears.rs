use std::sync::{Arc, Mutex};

use derp_kv_core::{Event, Observer};

/// Writes down what it hears, a line each, without the time that things took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hears(Arc<Mutex<Vec<String>>>);

impl Hears {
    /// What was heard since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Observer for Hears {
    fn event(&self, event: Event<'_>) {
        let line = match event {
            Event::Answered { operation, outcome, .. } => match outcome.source() {
                Some(source) => format!("{operation}: {} by {source}", outcome.name()),
                None => format!("{operation}: {}", outcome.name()),
            },
            Event::Computed { operation, reason, succeeded, .. } => {
                let came = if succeeded { "value" } else { "nothing" };
                format!("{operation}: {came} computed for a {}", reason.name())
            }
            Event::NotKept { operation, kind, .. } => {
                format!("{operation}: not kept, {}", kind.name())
            }
            Event::Undecodable { operation, .. } => format!("{operation}: undecodable"),
            Event::RefreshFailed { operation, .. } => format!("{operation}: refresh failed"),
            Event::LeaseLost { ttl, .. } => format!("lease of {ttl:?} lost"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}
