//! A webhook that is delivered three times, and whose handler fails the first time.

use derp_kv_core::{Dedup, KvStoreExt, Processed};
use derp_kv_memory::MemoryStore;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let kv = MemoryStore::new();
    for delivery in 1..=3 {
        let handler = || async move {
            anyhow::ensure!(delivery > 1, "the mail server is down");
            Ok(())
        };
        match kv.process_once("evt_1", &Dedup::default(), handler).await {
            Ok(Processed::Now(())) => println!("delivery {delivery}: handled"),
            Ok(_) => println!("delivery {delivery}: handled before"),
            Err(error) => println!("delivery {delivery}: {error}, so it comes again"),
        }
    }
    Ok(())
}
