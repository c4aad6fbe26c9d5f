//! Who hears of what happens behind a store.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use derp_kv_core::{Event, Observer};

/// The observer, if there is one, and with the feature `tracing` its subscriber, for one store.
#[derive(Clone, Default)]
pub(crate) struct Watcher {
    observer: Option<Arc<dyn Observer>>,
    /// The store is gone, and nothing more is told.
    has_ended: Arc<AtomicBool>,
}

impl Watcher {
    pub(super) fn new(observer: Arc<dyn Observer>) -> Self {
        Self { observer: Some(observer), has_ended: Arc::default() }
    }

    /// The same for a store that begins: it ends by itself.
    pub(crate) fn of_a_store(&self) -> Self {
        Self { observer: self.observer.clone(), has_ended: Arc::default() }
    }

    pub(crate) fn observer(&self) -> Option<&dyn Observer> {
        self.observer.as_deref()
    }

    /// Tells of what happens on the I/O threads.
    pub(crate) fn tell(&self, event: Event<'_>) {
        if !self.has_ended.load(Ordering::Acquire) {
            event.tell(self.observer());
        }
    }

    /// Tells nothing from now on. Links end a moment after their store, when their thread gets to it.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }
}

/// Two are equal that have the same observer.
impl PartialEq for Watcher {
    fn eq(&self, other: &Self) -> bool {
        match (&self.observer, &other.observer) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for Watcher {}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.observer.is_some() { "an observer" } else { "nobody" })
    }
}
