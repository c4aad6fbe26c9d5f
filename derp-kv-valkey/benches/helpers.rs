//! What each helper costs in commands, processor time and latency, and how a herd is tamed.

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use derp_kv_core::{
    Dedup, GuardedGet, Idempotency, KvStore, KvStoreExt as _, Processed, RateLimit,
};
use derp_kv_memory::MemoryStore;
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use futures_util::StreamExt as _;
use redis::aio::MultiplexedConnection;
use support::measure::{cpu_time, quantiles};
use support::{Args, Row, Rows, bare_client, bare_connection};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const TTL: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse()?;
    let mut rows = Rows::new(&args)?;
    let server = Server::start().await?;
    let counter = Counter { connection: bare_connection(&server).await?, server: &server };
    let turns = if args.short { 10 } else { 2000 };
    let valkey = connect(&server).await?;
    let mut one_by_one = OneByOne { subject: "Valkey", counter: Some(&counter), turns };
    one_by_one.all(&valkey, &mut rows).await?;
    one_by_one = OneByOne { subject: "memory", counter: None, turns: turns * 5 };
    one_by_one.all(&MemoryStore::new(), &mut rows).await?;

    herd(&server, &counter, &args, &mut rows).await?;
    for run in 0..if args.short { 1 } else { 3 } {
        wake_up(run, &server, &args, &mut rows).await?;
    }
    Ok(())
}

async fn connect(server: &Server) -> Result<ValkeyStore> {
    let config = ValkeyConfig::default().addresses([server.address()]);
    let config = config.op_timeout(Duration::from_secs(10));
    Ok(ValkeyStore::connect(config).await?)
}

/// Counts the commands that reach the server; a script is one of them.
struct Counter<'a> {
    connection: MultiplexedConnection,
    server: &'a Server,
}

impl Counter<'_> {
    /// How many commands the server gets while `work` is done.
    async fn during<T>(&self, work: impl Future<Output = Result<T>>) -> Result<(T, usize)> {
        let mut lines =
            pin!(bare_client(self.server)?.get_async_monitor().await?.into_on_message::<String>());
        let result = work.await?;
        // The server tells of everything in its order: after the mark there is nothing left.
        let mark = "the end of the count";
        let mut connection = self.connection.clone();
        redis::cmd("ECHO").arg(mark).exec_async(&mut connection).await?;
        let mut count = 0;
        while let Some(line) = lines.next().await {
            if line.contains(mark) {
                return Ok((result, count));
            }
            // What a script does is no command of the client's.
            count += usize::from(!line.contains(" lua] "));
        }
        bail!("the server stopped telling")
    }
}

/// One caller, one call after the other.
struct OneByOne<'a> {
    subject: &'static str,
    counter: Option<&'a Counter<'a>>,
    turns: usize,
}

impl OneByOne<'_> {
    async fn all(&self, kv: &(impl KvStore + Clone), rows: &mut Rows) -> Result<()> {
        kv.set(b"warm", b"value", None).await?;
        let cached = || GuardedGet::ttl(TTL);
        let value = || async { anyhow::Ok("value") };
        let one = || async { anyhow::Ok(1_u32) };
        let limit = || RateLimit::new(1 << 40, TTL);

        kv.guarded_get("hot", cached(), value).await?;
        let call = |_| async {
            ensure!(kv.guarded_get("hot", cached(), value).await? == "value");
            Ok(())
        };
        self.measure("guarded_get hit", call, rows).await?;
        let call = |at| async move {
            ensure!(kv.guarded_get(format!("cold:{at}"), cached(), value).await? == "value");
            Ok(())
        };
        self.measure("guarded_get uncontended miss", call, rows).await?;

        let call = |at: usize| async move {
            let options = Idempotency::default();
            let outcome = kv.idempotent_execute(format!("first:{at}"), options, one).await?;
            ensure!(!outcome.is_replay);
            Ok(())
        };
        self.measure("idempotent_execute first call", call, rows).await?;
        let call = |_| async {
            let options = Idempotency::default();
            ensure!(kv.idempotent_execute("first:1", options, one).await?.is_replay);
            Ok(())
        };
        self.measure("idempotent_execute replay", call, rows).await?;

        let call = |_| async {
            ensure!(kv.rate_limit("caller", limit()).await?.allowed);
            Ok(())
        };
        self.measure("rate_limit", call, rows).await?;
        let call = |at| async move {
            ensure!(!kv.already_processed(format!("event:{at}"), Dedup::default()).await?);
            Ok(())
        };
        self.measure("already_processed", call, rows).await?;
        let call = |at| async move {
            let processed = kv.process_once(format!("once:{at}"), Dedup::default(), one).await?;
            ensure!(processed == Processed::Now(1));
            Ok(())
        };
        self.measure("process_once first call", call, rows).await?;
        let call = |_| async {
            let lease = kv.try_lock("lock", TTL).await?.context("the lock is free")?;
            ensure!(lease.release().await?);
            Ok(())
        };
        self.measure("try_lock and release", call, rows).await
    }

    async fn measure<Fut: Future<Output = Result<()>>>(
        &self,
        bench: &str,
        call: impl Fn(usize) -> Fut,
        rows: &mut Rows,
    ) -> Result<()> {
        // Scripts are loaded once; that is no cost of a call.
        call(usize::MAX).await?;
        let commands = match self.counter {
            Some(counter) => Some(counter.during(call(usize::MAX - 1)).await?.1 as f64),
            None => None,
        };
        let cpu = cpu_time();
        let mut latencies = Vec::with_capacity(self.turns);
        for at in 0..self.turns {
            let begun = Instant::now();
            call(at).await?;
            latencies.push(begun.elapsed());
        }
        let cpu = cpu_time() - cpu;
        let turns = self.turns as f64;
        let took = latencies.iter().sum::<Duration>();
        let (p50_us, p99_us) = quantiles(latencies);
        rows.push(&Row {
            suite: "helpers",
            bench: bench.to_owned(),
            subject: self.subject.to_owned(),
            callers: Some(1),
            ops_per_s: Some(turns / took.as_secs_f64()),
            cpu_ns_per_op: Some(cpu.as_nanos() as f64 / turns),
            commands_per_op: commands,
            p50_us: Some(p50_us),
            p99_us: Some(p99_us),
            ..Row::default()
        })
    }
}

/// Two processes, each with many callers of one cold key.
async fn herd(server: &Server, counter: &Counter<'_>, args: &Args, rows: &mut Rows) -> Result<()> {
    let (callers, compute, rounds) = match args.short {
        true => (10, Duration::from_millis(20), 1),
        false => (500, Duration::from_millis(500), 3),
    };
    for round in 0..rounds {
        let stores = [connect(server).await?, connect(server).await?];
        let cpu = cpu_time();
        let barrier = Arc::new(Barrier::new(2 * callers + 1));
        let computed = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for caller in 0..2 * callers {
            let kv = stores[caller % 2].clone();
            let (barrier, computed) = (barrier.clone(), computed.clone());
            tasks.spawn(async move {
                barrier.wait().await;
                let begun = Instant::now();
                let value =
                    kv.guarded_get(format!("herd:{round}"), GuardedGet::ttl(TTL), || async {
                        computed.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(compute).await;
                        anyhow::Ok("value")
                    });
                ensure!(value.await? == "value");
                Ok(begun.elapsed())
            });
        }
        let herd = async {
            barrier.wait().await;
            let mut latencies = Vec::new();
            while let Some(latency) = tasks.join_next().await {
                latencies.push(latency??);
            }
            Ok(latencies)
        };
        let (latencies, commands) = counter.during(herd).await?;
        let ops = latencies.len() as f64;
        let cpu = cpu_time() - cpu;
        let (p50_us, p99_us) = quantiles(latencies);
        rows.push(&Row {
            suite: "helpers",
            bench: "herd on a cold key, two processes".to_owned(),
            subject: "Valkey".to_owned(),
            callers: Some(2 * callers),
            cpu_ns_per_op: Some(cpu.as_nanos() as f64 / ops),
            commands_per_op: Some(commands as f64 / ops),
            computed: Some(computed.load(Ordering::Relaxed)),
            p50_us: Some(p50_us),
            p99_us: Some(p99_us),
            ..Row::default()
        })?;
    }
    Ok(())
}

/// From the moment when one process has its value to the moment when a waiter in another has it.
async fn wake_up(run: usize, server: &Server, args: &Args, rows: &mut Rows) -> Result<()> {
    let (holder, waiter) = (connect(server).await?, connect(server).await?);
    let rounds = if args.short { 3 } else { 100 };
    let mut latencies = Vec::new();
    for round in 0..rounds {
        let key = format!("wake:{run}:{round}");
        let waiting = Arc::new(tokio::sync::Notify::new());
        let holding = tokio::spawn({
            let (holder, key, waiting) = (holder.clone(), key.clone(), waiting.clone());
            async move {
                let mut filled = Instant::now();
                let value = holder.guarded_get(key, GuardedGet::ttl(TTL), || async {
                    waiting.notify_one();
                    // The waiter has begun to wait by then.
                    tokio::time::sleep(Duration::from_millis(15)).await;
                    filled = Instant::now();
                    anyhow::Ok("value")
                });
                value.await?;
                anyhow::Ok(filled)
            }
        });
        waiting.notified().await;
        let options = GuardedGet::ttl(TTL);
        waiter.guarded_get(key, options, || async { anyhow::Ok("another value") }).await?;
        let now = Instant::now();
        latencies.push(now.saturating_duration_since(holding.await??));
    }
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
