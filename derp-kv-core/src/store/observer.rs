use std::fmt;

use crate::error::ErrorKind;
use crate::operation::Operation;

/// Hears what the helpers do on a store and tell no caller.
///
/// The helpers find it through [`KvStore::observer`](crate::KvStore::observer), and a
/// [`Layer`](crate::Layer) brings one along. It is called on the caller's path: it must return at
/// once and must not panic.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use derp_kv_core::{Event, Observer};
///
/// #[derive(Debug, Default)]
/// struct NotKept(AtomicU64);
///
/// impl Observer for NotKept {
///     fn event(&self, event: Event) {
///         if let Event::NotKept { .. } = event {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait Observer: fmt::Debug + Send + Sync {
    /// Is told of one event. Keys and values are never part of it.
    fn event(&self, event: Event);
}

/// What an [`Observer`] hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A computed value went to its caller, and the store did not take it.
    #[non_exhaustive]
    NotKept {
        /// The helper that computed it.
        operation: Operation,
        /// Why the store did not take it: [`Full`](ErrorKind::Full), for one.
        kind: ErrorKind,
    },
}
