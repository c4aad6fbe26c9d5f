//! A cold key under a herd: one computation, a hundred answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use derp_kv_core::{GuardedGet, KvStoreExt};
use derp_kv_memory::MemoryStore;
use futures_util::future::try_join_all;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let kv = MemoryStore::new();
    let computed = AtomicU64::new(0);
    let options = GuardedGet::new(Duration::from_secs(60));
    let page = || {
        kv.guarded_get("page:42", &options, || async {
            let version = computed.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
            anyhow::Ok(format!("version {version}"))
        })
    };

    let pages = try_join_all((0..100).map(|_| page())).await?;
    println!("{} callers, {} computation", pages.len(), computed.load(Ordering::Relaxed));

    kv.invalidate("page:42").await?;
    let fresh = page().await?;
    println!("after invalidate: {}", String::from_utf8_lossy(&fresh));
    Ok(())
}
