//! Five calls a second: exactly five of twenty at once, and five more in the next window.

use std::time::Duration;

use derp_kv_core::{KvStoreExt, RateLimit};
use derp_kv_memory::MemoryStore;
use futures_util::future::try_join_all;

#[tokio::main]
async fn main() -> derp_kv_core::Result<()> {
    let kv = MemoryStore::new();
    let limit = RateLimit::new(5, Duration::from_secs(1));
    for window in ["first", "next"] {
        let calls = (0..20).map(|_| kv.rate_limit("ada", &limit));
        let answers = try_join_all(calls).await?;
        let allowed = answers.iter().filter(|answer| answer.allowed).count();
        println!("{window} window: {allowed} of {} allowed", answers.len());

        let status = kv.rate_limit_peek("ada", &limit).await?;
        println!("Retry-After: {} s", status.reset_after.as_secs_f64().ceil());
        if window == "first" {
            tokio::time::sleep(status.reset_after).await;
        }
    }
    Ok(())
}
