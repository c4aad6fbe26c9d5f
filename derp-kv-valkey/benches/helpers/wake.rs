//! From the moment when one process has its value to the moment when a waiter in another has it.
//!
//! The value is that first moment, on the clock that the processes of a machine share.

use std::time::Duration;

use anyhow::{Result, ensure};
use derp_kv_core::{GuardedGet, KvStoreExt as _};
use derp_kv_valkey::ValkeyStore;
use derp_kv_valkey::test_server::Server;
use tokio::sync::Notify;

use crate::support::measure::{monotonic, quantiles};
use crate::support::worker::{Master, Worker};
use crate::support::{Args, Row, Rows};
use crate::{TTL, connect};

pub(crate) async fn measure(
    run: usize,
    server: &Server,
    args: &Args,
    rows: &mut Rows,
) -> Result<()> {
    let waiter = connect(server.port()).await?;
    let mut holder = Worker::start(&["holder", &server.port().to_string()]).await?;
    let rounds = if args.short { 3 } else { 100 };
    let mut latencies = Vec::new();
    for round in 0..rounds {
        let key = format!("wake:{run}:{round}");
        holder.tell(&key).await?;
        ensure!(holder.hear().await? == "computing");
        let nothing = || async { anyhow::Ok("0") };
        let filled = waiter.guarded_get(key, &GuardedGet::new(TTL), nothing).await?;
        let now = monotonic();
        let filled = Duration::from_nanos(std::str::from_utf8(&filled)?.parse()?);
        ensure!(!filled.is_zero(), "the waiter computed");
        latencies.push(now.saturating_sub(filled));
    }
    holder.end().await?;
    let (p50_us, p99_us) = quantiles(latencies);
    rows.push(&Row {
        suite: "helpers",
        bench: "a waiter in another process".to_owned(),
        subject: "Valkey".to_owned(),
        callers: Some(2),
        p50_us: Some(p50_us),
        p99_us: Some(p99_us),
        ..Row::default()
    })
}

/// The process that computes.
pub(crate) async fn hold(kv: &ValkeyStore, mut master: Master) -> Result<()> {
    while let Some(key) = master.hear().await? {
        let computing = Notify::new();
        let options = GuardedGet::new(TTL);
        let call = kv.guarded_get(key, &options, || async {
            computing.notify_one();
            // The waiter has begun to wait by then.
            tokio::time::sleep(Duration::from_millis(15)).await;
            anyhow::Ok(monotonic().as_nanos().to_string())
        });
        let told = async {
            computing.notified().await;
            master.tell("computing").await
        };
        let (filled, told) = tokio::join!(call, told);
        told?;
        filled?;
    }
    Ok(())
}
