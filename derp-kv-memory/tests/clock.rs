//! Whose clock it is, and when it began.

use std::time::Duration;

use derp_kv_core::{Expiry, KvStore};
use derp_kv_memory::MemoryStore;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn a_store_made_outside_a_paused_runtime_keeps_exact_time_inside() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    // The runtime's clock stands still from here on; the store's first moment is a later one.
    std::thread::sleep(Duration::from_millis(20));
    let kv = MemoryStore::new();
    runtime.block_on(async {
        kv.set(b"k", b"v", Some(DAY)).await.unwrap();
        assert_eq!(kv.ttl(b"k").await.unwrap(), Some(Expiry::In(DAY)));
        tokio::time::advance(DAY - Duration::from_millis(1)).await;
        assert_eq!(kv.ttl(b"k").await.unwrap(), Some(Expiry::In(Duration::from_millis(1))));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(kv.get(b"k").await.unwrap(), None);
    });
}
