//! The background sweep: gives memory back while nothing is written.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::keyspace::{Inner, SHARDS};

/// Starts the sweep where one is wanted, none runs, and there is a runtime to run it. The runtime
/// of an earlier one may have ended.
pub(crate) fn ensure(inner: &Arc<Inner>) {
    let Some(every) = inner.sweep_every else { return };
    // Whoever holds the lock is looking already.
    let Some(mut sweeper) = inner.sweeper.try_lock() else { return };
    if sweeper.as_ref().is_some_and(|sweeper| !sweeper.is_finished()) {
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let sweep = run(Arc::downgrade(inner), every.max(Duration::from_millis(1)));
    *sweeper = Some(runtime.spawn(sweep).abort_handle());
}

async fn run(store: Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if !sweep_all(&store).await {
            return;
        }
    }
}

/// Visits all shards in steps; other tasks run between them, and the store may go away. Tells
/// whether it is still there.
async fn sweep_all(store: &Weak<Inner>) -> bool {
    let mut from = 0;
    while from < SHARDS {
        let Some(inner) = store.upgrade() else { return false };
        from = inner.sweep_step(from);
        drop(inner);
        tokio::task::yield_now().await;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use derp_kv_core::KvStore;

    use super::*;
    use crate::clock::ManualClock;
    use crate::keyspace::SWEEP_PER_STEP;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn other_tasks_run_after_every_step_however_little_is_due_in_one_shard() {
        let clock = ManualClock::new();
        let kv = MemoryStore::builder().clock(clock.clone()).build();
        for id in 0..20_000_u32 {
            kv.set(&id.to_be_bytes(), b"v", Some(Duration::from_secs(1))).await.unwrap();
        }
        clock.advance(Duration::from_secs(1));
        let (full, one) = (kv.pinned_bytes(), kv.pinned_bytes() / 20_000);
        let most_freed = Arc::new(AtomicUsize::new(0));
        let other = tokio::spawn({
            let (kv, most_freed) = (kv.clone(), most_freed.clone());
            let mut before = full;
            async move {
                while before > 0 {
                    let now = kv.pinned_bytes();
                    most_freed.fetch_max(before - now, Ordering::Relaxed);
                    before = now;
                    tokio::task::yield_now().await;
                }
            }
        });
        assert!(sweep_all(&Arc::downgrade(&kv.inner)).await);
        other.await.unwrap();
        assert_eq!(most_freed.load(Ordering::Relaxed), SWEEP_PER_STEP * one);
    }
}
