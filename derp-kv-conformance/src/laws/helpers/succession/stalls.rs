//! How long the machine itself keeps everybody waiting: who renews a lease is kept waiting, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often the watch looks at its clock.
const TICK: Duration = Duration::from_millis(10);

/// What a watch has seen.
#[derive(Debug)]
struct Seen {
    began: Instant,
    /// In milliseconds since the watch began.
    last_tick: AtomicU64,
    longest: AtomicU64,
    is_over: AtomicBool,
}

impl Seen {
    /// Notes how late it is for a tick.
    fn tick(&self) -> Duration {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let since = now.saturating_sub(self.last_tick.swap(now, Ordering::SeqCst));
        let before = self.longest.fetch_max(since, Ordering::SeqCst);
        Duration::from_millis(before.max(since))
    }
}

/// A watch on a thread of its own, which no store and no runtime can keep from running.
#[derive(Debug)]
pub(in crate::laws::helpers) struct Stalls(Option<Arc<Seen>>);

impl Stalls {
    /// Watches from now on; in virtual time there is nothing to be late for.
    pub(in crate::laws::helpers) fn watched(is_virtual: bool) -> Self {
        if is_virtual {
            return Self(None);
        }
        let seen = Arc::new(Seen {
            began: Instant::now(),
            last_tick: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let watches = seen.clone();
        std::thread::spawn(move || {
            while !watches.is_over.load(Ordering::SeqCst) {
                sleep(TICK);
                watches.tick();
            }
        });
        Self(Some(seen))
    }

    /// Whether the machine has stalled for so long that a lease of `ttl`, which is renewed after a
    /// third of it, may have ended although its holder lives.
    pub(in crate::laws::helpers) fn may_end(&self, ttl: Duration) -> bool {
        self.0.as_ref().is_some_and(|seen| seen.tick() > ttl * 3 / 5)
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        if let Some(seen) = &self.0 {
            seen.is_over.store(true, Ordering::SeqCst);
        }
    }
}
