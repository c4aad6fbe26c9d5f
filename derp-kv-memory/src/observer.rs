//! Who hears what the helpers do on a store.

use std::sync::Arc;

use derp_kv_core::Observer;

/// The observer that the options name. Clones are the same observer, and no two others are.
#[derive(Clone, Debug)]
pub(crate) struct SharedObserver(pub(crate) Arc<dyn Observer>);

impl PartialEq for SharedObserver {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedObserver {}
