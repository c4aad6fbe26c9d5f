use std::collections::{BTreeMap, HashMap};

use tokio::sync::oneshot;

/// Who waits for a change of a key of one shard. Costs a writer one look at an empty map.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// By number, which is the order in which they came: one that goes is found among many.
    by_hash: HashMap<u64, BTreeMap<u64, oneshot::Sender<()>>>,
    registered: u64,
}

impl Waiters {
    /// The waiter's number, and what it waits on.
    pub(crate) fn register(&mut self, hash: u64) -> (u64, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        self.registered += 1;
        self.by_hash.entry(hash).or_default().insert(self.registered, sender);
        (self.registered, receiver)
    }

    pub(crate) fn wake(&mut self, hash: u64) {
        if self.by_hash.is_empty() {
            return;
        }
        for waiter in self.by_hash.remove(&hash).into_iter().flat_map(BTreeMap::into_values) {
            // A waiter that has gone needs no wake-up.
            let _ = waiter.send(());
        }
    }

    /// Forgets a waiter, which may have been woken already.
    pub(crate) fn forget(&mut self, hash: u64, number: u64) {
        if let Some(waiters) = self.by_hash.get_mut(&hash) {
            waiters.remove(&number);
            if waiters.is_empty() {
                self.by_hash.remove(&hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Wake, Waker};

    use super::*;

    const KEY: u64 = 7;

    #[test]
    fn a_waiter_that_goes_takes_itself_away_and_looks_at_no_other() {
        let mut waiters = Waiters::default();
        let gone: Vec<_> = (0..100).map(|_| waiters.register(KEY).0).collect();
        let (stays, mut woken) = waiters.register(KEY);
        // All receivers but one are closed, but each is forgotten by its own number alone.
        for (forgotten, number) in gone.iter().enumerate() {
            assert_eq!(waiters.by_hash[&KEY].len(), 101 - forgotten);
            waiters.forget(KEY, *number);
        }
        waiters.wake(KEY);
        assert_eq!(woken.try_recv(), Ok(()));
        waiters.forget(KEY, stays);
        assert!(waiters.by_hash.is_empty());
    }

    #[test]
    fn a_woken_waiter_takes_nobody_away_who_came_later() {
        let mut waiters = Waiters::default();
        let (early, _) = waiters.register(KEY);
        waiters.wake(KEY);
        let (_, mut late) = waiters.register(KEY);
        waiters.forget(KEY, early);
        waiters.wake(KEY);
        assert_eq!(late.try_recv(), Ok(()));
    }

    struct Noted(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Noted {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[test]
    fn waiters_are_woken_in_the_order_in_which_they_came() {
        let mut waiters = Waiters::default();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut receivers: Vec<_> = (0..100).map(|_| waiters.register(KEY).1).collect();
        for (came, receiver) in receivers.iter_mut().enumerate() {
            let waker = Waker::from(Arc::new(Noted(came, order.clone())));
            let polled = std::pin::pin!(receiver).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        waiters.wake(KEY);
        assert!(order.lock().unwrap().iter().copied().eq(0..100));
    }
}
