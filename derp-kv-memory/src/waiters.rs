use std::collections::HashMap;

use tokio::sync::oneshot;

/// Who waits for a change of a key of one shard. Costs a writer one look at an empty map.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    by_hash: HashMap<u64, Vec<oneshot::Sender<()>>>,
}

impl Waiters {
    pub(crate) fn register(&mut self, hash: u64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.by_hash.entry(hash).or_default().push(sender);
        receiver
    }

    pub(crate) fn wake(&mut self, hash: u64) {
        if self.by_hash.is_empty() {
            return;
        }
        for waiter in self.by_hash.remove(&hash).into_iter().flatten() {
            // A waiter that has gone needs no wake-up.
            let _ = waiter.send(());
        }
    }

    /// Forgets the waiters of `hash` that have gone.
    pub(crate) fn forget_gone(&mut self, hash: u64) {
        if let Some(waiters) = self.by_hash.get_mut(&hash) {
            waiters.retain(|waiter| !waiter.is_closed());
            if waiters.is_empty() {
                self.by_hash.remove(&hash);
            }
        }
    }
}
