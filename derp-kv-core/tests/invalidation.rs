//! What an invalidation costs those who wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use derp_kv_core::{Error, GuardedGet, KvStore, KvStoreExt};
use derp_kv_memory::MemoryStore;
use futures_util::future::join_all;

const OPTIONS: GuardedGet = GuardedGet::new(Duration::from_secs(300));
const SLOW: Duration = Duration::from_millis(500);

/// The computation under way when the data changes is in vain. Whoever waited for it needs one more
/// among them all, which begins after the change and so is worth keeping.
#[tokio::test(start_paused = true)]
async fn those_who_wait_share_one_computation_after_an_invalidation() {
    let kv = MemoryStore::new();
    let computed = Arc::new(AtomicU32::new(0));
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let (kv, computed) = (kv.clone(), computed.clone());
            tokio::spawn(async move {
                kv.guarded_get("k", &OPTIONS, || async {
                    let nth = computed.fetch_add(1, Ordering::SeqCst) + 1;
                    tokio::time::sleep(SLOW).await;
                    Ok::<_, Error>(nth.to_string())
                })
                .await
            })
        })
        .collect();
    tokio::time::sleep(SLOW / 2).await;
    assert_eq!(computed.load(Ordering::SeqCst), 1);
    assert_eq!(kv.flights().unwrap().len(), 1);
    kv.invalidate("k").await.unwrap();
    join_all(calls).await.into_iter().for_each(|value| drop(value.unwrap().unwrap()));
    assert_eq!(computed.load(Ordering::SeqCst), 2);
    assert_eq!(kv.get(b"k").await.unwrap().unwrap(), "2");
}
