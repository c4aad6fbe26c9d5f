use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use derp_kv_core::{
    Dedup, GuardedGet, Idempotency, KvStore, KvStoreExt as _, Processed, RateLimit,
};

use crate::TTL;
use crate::counter::Counter;
use crate::support::measure::{cpu_time, quantiles};
use crate::support::{Row, Rows};
use crate::without_flights::WithoutFlights;

/// One caller, one call after the other.
pub(crate) struct OneByOne<'a> {
    pub(crate) subject: &'static str,
    pub(crate) counter: Option<&'a Counter<'a>>,
    pub(crate) turns: usize,
}

impl OneByOne<'_> {
    pub(crate) async fn all(&self, kv: &(impl KvStore + Clone), rows: &mut Rows) -> Result<()> {
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
        let alone = &WithoutFlights(kv.clone());
        let call = |at| async move {
            ensure!(alone.guarded_get(format!("alone:{at}"), cached(), value).await? == "value");
            Ok(())
        };
        self.measure("the same without a flight of its own", call, rows).await?;

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
