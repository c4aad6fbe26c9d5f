//! One request sent five times at once: one charge, five equal answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use derp_kv_core::{ErrorKind, Idempotency, KvStoreExt};
use derp_kv_memory::MemoryStore;
use futures_util::future::try_join_all;

#[tokio::main]
async fn main() -> derp_kv_core::Result<()> {
    let kv = MemoryStore::new();
    let charges = AtomicU64::new(0);
    let charge = async |body: &'static str| {
        let options = Idempotency::default().status_code(201).fingerprint(body);
        kv.idempotent_execute("ada:8e03978e", &options, || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, derp_kv_core::Error>(charges.fetch_add(1, Ordering::Relaxed) + 1)
        })
        .await
    };

    let outcomes = try_join_all((0..5).map(|_| charge("20 EUR"))).await?;
    let replays = outcomes.iter().filter(|outcome| outcome.is_replay).count();
    println!("5 requests: {} charge, {replays} replays", charges.load(Ordering::Relaxed));

    match charge("2000 EUR").await {
        Err(error) if error.kind() == ErrorKind::KeyReused => println!("other body: {error}"),
        other => println!("unexpected: {other:?}"),
    }
    Ok(())
}
