//! Two processes, each with many callers of one cold key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use derp_kv_core::{GuardedGet, KvStoreExt as _};
use derp_kv_valkey::ValkeyStore;
use derp_kv_valkey::test_server::Server;
use serde::{Deserialize, Serialize};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::TTL;
use crate::counter::Counter;
use crate::support::measure::{cpu_time, quantiles};
use crate::support::worker::{Master, Worker};
use crate::support::{Args, Row, Rows};

/// What one process tells of its part.
#[derive(Serialize, Deserialize)]
struct Part {
    waits: Vec<Duration>,
    cpu: Duration,
    computed: usize,
}

pub(crate) async fn measure(
    server: &Server,
    counter: &Counter<'_>,
    args: &Args,
    rows: &mut Rows,
) -> Result<()> {
    let (callers, compute_ms, rounds) = if args.short { (10, 20, 1) } else { (500, 500, 3) };
    let (port, per_process) = (server.port().to_string(), callers.to_string());
    let compute_ms = compute_ms.to_string();
    let mut workers = Vec::new();
    for _ in 0..2 {
        workers.push(Worker::start(&["herd", &port, &per_process, &compute_ms]).await?);
    }
    for round in 0..rounds {
        let herd = async {
            for worker in &mut workers {
                worker.tell(&format!("herd:{round}")).await?;
            }
            let mut parts = Vec::new();
            for worker in &mut workers {
                parts.push(serde_json::from_str::<Part>(&worker.hear().await?)?);
            }
            Ok(parts)
        };
        let (parts, commands) = counter.during(herd).await?;
        let ops = (2 * callers) as f64;
        let cpu: Duration = parts.iter().map(|part| part.cpu).sum();
        let computed = parts.iter().map(|part| part.computed).sum();
        let (p50_us, p99_us) = quantiles(parts.into_iter().flat_map(|part| part.waits).collect());
        rows.push(&Row {
            suite: "helpers",
            bench: "herd on a cold key, two processes".to_owned(),
            subject: "Valkey".to_owned(),
            callers: Some(2 * callers),
            cpu_ns_per_op: Some(cpu.as_nanos() as f64 / ops),
            commands_per_op: Some(commands as f64 / ops),
            computed: Some(computed),
            p50_us: Some(p50_us),
            p99_us: Some(p99_us),
            ..Row::default()
        })?;
    }
    for worker in workers {
        worker.end().await?;
    }
    Ok(())
}

/// One of the processes: for each key that it is told, all its callers ask at once.
pub(crate) async fn work(kv: &ValkeyStore, args: &[String], mut master: Master) -> Result<()> {
    let number = |at: usize| args.get(at).context("a number is missing");
    let callers: usize = number(0)?.parse()?;
    let compute = Duration::from_millis(number(1)?.parse()?);
    while let Some(key) = master.hear().await? {
        let cpu = cpu_time();
        let barrier = Arc::new(Barrier::new(callers));
        let computed = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let (kv, key) = (kv.clone(), key.clone());
            let (barrier, computed) = (barrier.clone(), computed.clone());
            tasks.spawn(async move {
                barrier.wait().await;
                let begun = Instant::now();
                let options = GuardedGet::new(TTL);
                let value = kv.guarded_get(key, &options, || async {
                    computed.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(compute).await;
                    anyhow::Ok("value")
                });
                ensure!(value.await? == "value");
                Ok(begun.elapsed())
            });
        }
        let waits = tasks.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        let computed = computed.load(Ordering::Relaxed);
        let part = Part { waits, cpu: cpu_time() - cpu, computed };
        master.tell(&serde_json::to_string(&part)?).await?;
    }
    Ok(())
}
