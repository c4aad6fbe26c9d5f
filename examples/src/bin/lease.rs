//! Three workers and one job that only one of them may do at a time.

use std::time::Duration;

use derp_kv_core::{KvStoreExt, Lock};
use derp_kv_memory::MemoryStore;
use futures_util::future::try_join_all;

#[tokio::main]
async fn main() -> derp_kv_core::Result<()> {
    let kv = MemoryStore::new();
    // The TTL is far shorter than the work: the lease is renewed while it is held.
    let options = Lock::new(Duration::from_millis(60)).at_most(Duration::from_secs(30));
    let worker = |name: &'static str| {
        let kv = kv.clone();
        async move {
            let lease = kv.lock("rebuild", &options).await?;
            println!("{name} has it");
            tokio::time::sleep(Duration::from_millis(200)).await;
            println!("{name} is done");
            lease.release().await
        }
    };
    let kept = try_join_all(["ada", "bob", "eve"].map(worker)).await?;
    println!("kept to the end: {kept:?}");
    Ok(())
}
