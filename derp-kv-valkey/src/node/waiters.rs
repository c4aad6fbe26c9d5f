//! Who waits for a key to change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::protocol::reply::Reply;

/// The callers that wait for an invalidation on one connection, by key.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    keys: Mutex<HashMap<Vec<u8>, Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    callers: usize,
    changed: Arc<Notify>,
}

/// One caller's entry, gone when dropped.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    key: &'a [u8],
    pub(crate) changed: Arc<Notify>,
}

impl Waiters {
    pub(crate) fn register<'a>(&'a self, key: &'a [u8]) -> Waiter<'a> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = keys.entry(key.to_vec()).or_default();
        waiting.callers += 1;
        Waiter { waiters: self, key, changed: Arc::clone(&waiting.changed) }
    }

    /// Wakes whom a push of the server concerns. It runs on the connection's own task and never
    /// blocks.
    pub(crate) fn push(&self, kind: &str, data: &[Reply]) {
        if kind != "invalidate" {
            return;
        }
        match data.first() {
            Some(Reply::Array(keys)) => {
                for key in keys {
                    if let Reply::BulkString(key) = key {
                        self.wake(key);
                    }
                }
            }
            // The whole keyspace was flushed.
            _ => self.wake_all(),
        }
    }

    fn wake(&self, key: &[u8]) {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = keys.get(key) {
            waiting.changed.notify_waiters();
        }
    }

    pub(crate) fn wake_all(&self) {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for waiting in keys.values() {
            waiting.changed.notify_waiters();
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut keys = self.waiters.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = keys.get_mut(self.key) {
            waiting.callers -= 1;
            if waiting.callers == 0 {
                keys.remove(self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_push_wakes_the_waiters_of_its_key_only() {
        let waiters = Waiters::default();
        let (here, there) = (waiters.register(b"here"), waiters.register(b"there"));
        let mut woken = std::pin::pin!(here.changed.notified());
        let mut asleep = std::pin::pin!(there.changed.notified());
        assert!(!woken.as_mut().enable() && !asleep.as_mut().enable());
        let keys = Reply::Array(vec![Reply::BulkString("here".into())]);
        waiters.push("invalidate", &[keys]);
        assert!(woken.as_mut().enable() && !asleep.as_mut().enable());
        waiters.push("invalidate", &[Reply::Nil]);
        assert!(asleep.as_mut().enable());
    }

    #[test]
    fn an_entry_goes_with_its_last_waiter() {
        let waiters = Waiters::default();
        let (first, second) = (waiters.register(b"k"), waiters.register(b"k"));
        drop(first);
        assert_eq!(waiters.keys.lock().unwrap().len(), 1);
        drop(second);
        assert!(waiters.keys.lock().unwrap().is_empty());
    }
}
