use std::sync::Arc;

use derp_kv_core::{Event, Observer};

/// Several observers in the place of the one that a store takes.
#[derive(Debug)]
pub(crate) struct Observers(pub(crate) Vec<Arc<dyn Observer>>);

impl Observer for Observers {
    fn event(&self, event: Event<'_>) {
        self.0.iter().for_each(|observer| observer.event(event));
    }
}
