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
    /// A computed value went to its caller and was not kept.
    #[non_exhaustive]
    NotKept {
        /// The helper that computed it.
        operation: Operation,
        /// Why: what the store said, such as [`Full`](ErrorKind::Full); [`Held`](ErrorKind::Held) where
        /// the lock was not its holder's to the end, as after an invalidation;
        /// [`InvalidArgument`](ErrorKind::InvalidArgument) where the value cannot be encoded.
        kind: ErrorKind,
    },
    /// A cached value could not be decoded, and counts as a miss.
    #[non_exhaustive]
    Undecodable {
        /// The helper that read it.
        operation: Operation,
    },
    /// A refresh came to nothing: its computation failed, panicked, hung until nobody waited for it, or
    /// went away with its caller. Callers get the value that was there, for as long as it lasts.
    #[non_exhaustive]
    RefreshFailed {
        /// The helper that refreshed.
        operation: Operation,
    },
}
