//! The background sweep: gives memory back while nothing is written.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::inner::{Inner, SHARDS, SWEEP_PER_STEP};

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
        for shard in 0..SHARDS {
            // The lock is let go between steps, and the store may go away.
            loop {
                let Some(inner) = store.upgrade() else { return };
                if inner.sweep_shard(shard, SWEEP_PER_STEP) < SWEEP_PER_STEP {
                    break;
                }
                drop(inner);
                tokio::task::yield_now().await;
            }
        }
    }
}
