//! What the cache's calls are named, and who hears of them.

use crate::operation::Operation;
use crate::store::kv_store::KvStore;
use crate::store::observer::Event;

/// The name of a call that asks for a value, in errors and events.
pub(crate) const OPERATION: Operation = Operation::GuardedGet;

/// Tells the store's observer, where it has one.
pub(crate) fn tell<S: KvStore + ?Sized>(store: &S, event: Event) {
    if let Some(observer) = store.observer() {
        observer.event(event);
    }
}
