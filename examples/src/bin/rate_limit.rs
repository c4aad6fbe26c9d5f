//! Five calls a second, in three promises: how much of two bursts around the edge of a window passes.

use std::time::Duration;

use derp_kv_core::{KvStore, RateLimit, RateLimiter};
use derp_kv_memory::{ManualClock, MemoryStore};
use futures_util::future::try_join_all;

const SECOND: Duration = Duration::from_secs(1);

/// How many of twenty calls at once are allowed.
async fn burst<S: KvStore>(limiter: &RateLimiter<S>) -> derp_kv_core::Result<usize> {
    let answers = try_join_all((0..20).map(|_| limiter.check("ada"))).await?;
    Ok(answers.iter().filter(|answer| answer.allowed).count())
}

#[tokio::main]
async fn main() -> derp_kv_core::Result<()> {
    let clock = ManualClock::new();
    let kv = MemoryStore::builder().clock(clock.clone()).build()?;
    for (name, limit) in [
        ("fixed window", RateLimit::new(5, SECOND)),
        ("smooth", RateLimit::smooth(5, SECOND)),
        ("strict", RateLimit::strict(5, SECOND)),
    ] {
        let limiter = RateLimiter::new(kv.clone(), limit);
        limiter.check("ada").await?;
        clock.advance(SECOND * 9 / 10);
        let before = burst(&limiter).await?;
        clock.advance(SECOND * 2 / 10);
        let after = burst(&limiter).await?;
        println!("{name}: {before} and {after} of 20 pass within 0.2 s");

        let denied = limiter.check("ada").await?;
        println!("  the next one after {:?}", denied.retry_after.unwrap_or_default());
    }
    Ok(())
}
