//! The background sweep: gives memory back while nothing is written.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::keyspace::{Keyspace, SHARDS};

/// The background task of one store. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Sweep {
    every: Duration,
    task: Mutex<Option<AbortHandle>>,
}

impl Sweep {
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, task: Mutex::default() }
    }

    /// Starts the task where none runs and there is a runtime to run it. The runtime of an earlier
    /// one may have ended.
    pub(crate) fn ensure(&self, keyspace: &Arc<Keyspace>) {
        // Whoever holds the lock is looking already.
        let Some(mut task) = self.task.try_lock() else { return };
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let sweep = run(Arc::downgrade(keyspace), self.every);
        *task = Some(runtime.spawn(sweep).abort_handle());
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

async fn run(keyspace: Weak<Keyspace>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if !sweep_all(&keyspace).await {
            return;
        }
    }
}

/// Visits all shards in steps; other tasks run between them, and the store may go away. Tells
/// whether it is still there.
async fn sweep_all(keyspace: &Weak<Keyspace>) -> bool {
    let mut from = 0;
    while from < SHARDS {
        let Some(alive) = keyspace.upgrade() else { return false };
        from = alive.sweep_step(from);
        drop(alive);
        tokio::task::yield_now().await;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use derp_kv_core::Ttl;

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::MemoryConfig;
    use crate::keyspace::SWEEP_PER_STEP;

    #[tokio::test]
    async fn other_tasks_run_after_every_step_however_little_is_due_in_one_shard() {
        let clock = ManualClock::new();
        let keyspace = Arc::new(Keyspace::new(&MemoryConfig::default().clock(clock.clone())));
        let ttl = Ttl::new(Duration::from_secs(1)).unwrap();
        for id in 0..20_000_u32 {
            let written = keyspace.update(&id.to_be_bytes(), |slot| {
                slot.write_pinned(b"v", slot.deadline(Some(ttl)))
            });
            written.unwrap();
        }
        clock.advance(Duration::from_secs(1));
        let used = move |keyspace: &Keyspace| keyspace.regions.budget.used();
        let (full, one) = (used(&keyspace), used(&keyspace) / 20_000);
        let most_freed = Arc::new(AtomicUsize::new(0));
        let other = tokio::spawn({
            let (keyspace, most_freed) = (keyspace.clone(), most_freed.clone());
            let mut before = full;
            async move {
                while before > 0 {
                    let now = used(&keyspace);
                    most_freed.fetch_max(before - now, Ordering::Relaxed);
                    before = now;
                    tokio::task::yield_now().await;
                }
            }
        });
        assert!(sweep_all(&Arc::downgrade(&keyspace)).await);
        other.await.unwrap();
        assert_eq!(most_freed.load(Ordering::Relaxed), SWEEP_PER_STEP * one);
    }
}
