//! The background sweep: gives memory back while nothing is written.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::inner::{Inner, SHARDS, SWEEP_PER_STEP};

/// Starts the sweep once, where one is wanted and there is a runtime to run it.
pub(crate) fn ensure(inner: &Arc<Inner>) {
    let Some(every) = inner.sweep_every else { return };
    if inner.sweeper.get().is_some() {
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    inner.sweeper.get_or_init(|| {
        runtime
            .spawn(run(Arc::downgrade(inner), every.max(Duration::from_millis(1))))
            .abort_handle()
    });
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
