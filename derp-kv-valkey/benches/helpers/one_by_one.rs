//! What one caller pays who makes one call after the other.

use std::time::{Duration, Instant};

use anyhow::Result;
use derp_kv_core::KvStore;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::helper::Helper;
use crate::support::measure::{cpu_time, quantiles};
use crate::support::{Row, Rows};

/// Times every helper on `kv`. `commands_of` counts what a call sends through `counted`, a handle
/// of the same store.
pub(crate) async fn measure(
    subject: &str,
    kv: &(impl KvStore + Clone),
    counted: &(impl KvStore + Clone),
    turns: usize,
    commands_of: impl AsyncFn(BoxFuture<'_, Result<()>>) -> Result<usize>,
    rows: &mut Rows,
) -> Result<()> {
    Helper::prepare(kv).await?;
    for helper in Helper::ALL {
        // Scripts are loaded once; that is no cost of a call.
        helper.call(kv, usize::MAX).await?;
        let commands = commands_of(helper.call(counted, usize::MAX - 1).boxed()).await?;
        let cpu = cpu_time();
        let mut latencies = Vec::with_capacity(turns);
        for at in 0..turns {
            let begun = Instant::now();
            helper.call(kv, at).await?;
            latencies.push(begun.elapsed());
        }
        let cpu = cpu_time() - cpu;
        let took = latencies.iter().sum::<Duration>();
        let (p50_us, p99_us) = quantiles(latencies);
        rows.push(&Row {
            suite: "helpers",
            bench: helper.name().to_owned(),
            subject: subject.to_owned(),
            callers: Some(1),
            ops_per_s: Some(turns as f64 / took.as_secs_f64()),
            cpu_ns_per_op: Some(cpu.as_nanos() as f64 / turns as f64),
            commands_per_op: Some(commands as f64),
            p50_us: Some(p50_us),
            p99_us: Some(p99_us),
            ..Row::default()
        })?;
    }
    Ok(())
}
