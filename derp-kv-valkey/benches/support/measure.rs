//! Rounds of concurrent callers, interleaved between the subjects that are compared.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{Args, Row};

/// CPU time that this process has used so far.
pub fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// A clock that the processes of a machine share.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// One operation, done again and again; `at` tells one time from another.
pub trait Work: Clone + Send + Sync + 'static {
    fn once(&self, at: usize) -> impl Future<Output = Result<()>> + Send;
}

/// What one round of `callers * turns` operations took.
#[derive(Clone, Debug)]
pub struct Sample {
    pub ops_per_s: f64,
    pub cpu_ns_per_op: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// Lets `callers` tasks do `turns` operations each.
///
/// # Errors
/// The first operation that failed.
pub async fn round<W: Work>(work: &W, callers: usize, turns: usize) -> Result<Sample> {
    let barrier = Arc::new(Barrier::new(callers + 1));
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (work, barrier) = (work.clone(), barrier.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(turns);
            barrier.wait().await;
            barrier.wait().await;
            for turn in 0..turns {
                let begun = Instant::now();
                work.once(caller * 7919 + turn * 31).await?;
                latencies.push(begun.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    barrier.wait().await;
    let (begun, cpu) = (Instant::now(), cpu_time());
    barrier.wait().await;
    let mut done = Vec::with_capacity(callers);
    while let Some(latencies) = tasks.join_next().await {
        done.push(latencies??);
    }
    let (took, cpu) = (begun.elapsed(), cpu_time() - cpu);
    let latencies = done.concat();
    let ops = latencies.len() as f64;
    let (p50_us, p99_us) = quantiles(latencies);
    Ok(Sample {
        ops_per_s: ops / took.as_secs_f64(),
        cpu_ns_per_op: cpu.as_nanos() as f64 / ops,
        p50_us,
        p99_us,
    })
}

/// The median and the 99th percentile in microseconds.
pub fn quantiles(mut latencies: Vec<Duration>) -> (f64, f64) {
    latencies.sort_unstable();
    let quantile = |q: f64| {
        let at = (q * (latencies.len().saturating_sub(1)) as f64).round() as usize;
        latencies.get(at).map_or(0.0, |latency| latency.as_nanos() as f64 / 1e3)
    };
    (quantile(0.5), quantile(0.99))
}

/// A subject under comparison, whatever its type.
pub trait Round: Send + Sync {
    fn round(&self, callers: usize, turns: usize) -> BoxFuture<'_, Result<Sample>>;
}

impl<W: Work> Round for W {
    fn round(&self, callers: usize, turns: usize) -> BoxFuture<'_, Result<Sample>> {
        Box::pin(round(self, callers, turns))
    }
}

/// The subject that this project is.
pub const OURS: &str = "derp-kv";

pub type Contender = (&'static str, Box<dyn Round>);

/// How long and how often each subject is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub rounds: usize,
    pub round: Duration,
    /// Where an operation is so slow that all rounds would take longer than this, there are fewer.
    pub at_most: Duration,
}

impl Plan {
    pub fn new(args: &Args) -> Self {
        Self::of(args, 7, Duration::from_secs(4))
    }

    /// Of a row that has a bound to keep: its median is to be the same from run to run.
    pub fn of_budget(args: &Args) -> Self {
        Self::of(args, 61, Duration::from_secs(60))
    }

    /// Of the table of reach: many rows, each with a bound, in some minutes.
    pub fn of_reach(args: &Args) -> Self {
        Self::of(args, 31, Duration::from_secs(60))
    }

    fn of(args: &Args, rounds: usize, at_most: Duration) -> Self {
        let (rounds, millis) = if args.short { (1, 1) } else { (rounds, 80) };
        Self {
            rounds: args.rounds.unwrap_or(rounds),
            round: Duration::from_millis(millis),
            // Rounds that were asked for are not cut short so soon.
            at_most: if args.rounds.is_some() { Duration::from_secs(600) } else { at_most },
        }
    }
}

/// Measures the contenders against the first of them; one row each.
///
/// # Errors
/// The first operation that failed.
pub async fn compare(row: &Row, contenders: &[Contender], plan: Plan) -> Result<Vec<Row>> {
    let samples = interleave(contenders, row.callers.unwrap_or(1), plan).await?;
    Ok(rows(row, contenders, &samples))
}

/// Measures the contenders in turn, round by round; the samples of each, one a round.
///
/// Machine noise that lasts longer than a round hits all of them alike: that is why ratios are
/// taken within one round.
///
/// # Errors
/// The first operation that failed.
pub async fn interleave(
    contenders: &[Contender],
    callers: usize,
    plan: Plan,
) -> Result<Vec<Vec<Sample>>> {
    let mut turns = Vec::new();
    for (_, contender) in contenders {
        let trial = contender.round(callers, 1).await?;
        let trial = contender.round(callers, turns_for(&trial, callers, plan.round / 4)).await?;
        turns.push(turns_for(&trial, callers, plan.round));
    }
    let mut samples = vec![Vec::new(); contenders.len()];
    let begun = Instant::now();
    for nth in 0..plan.rounds {
        if nth >= 3 && begun.elapsed() > plan.at_most {
            break;
        }
        // Each goes first as often as the others.
        for at in (0..contenders.len()).map(|i| (i + nth) % contenders.len()) {
            samples[at].push(contenders[at].1.round(callers, turns[at]).await?);
        }
    }
    Ok(samples)
}

/// A row for each contender, from its samples and those of the first.
pub fn rows(row: &Row, contenders: &[Contender], samples: &[Vec<Sample>]) -> Vec<Row> {
    let ours = contenders.iter().position(|(name, _)| *name == OURS).map(|at| &samples[at]);
    let rows = contenders.iter().zip(samples).map(|((name, _), mine)| {
        let over = |of| ratio(mine, &samples[0], of);
        let ours_over = |of| ours.and_then(|ours| ratio(ours, mine, of));
        Row {
            subject: (*name).to_owned(),
            ops_per_s: median(mine.iter().map(|sample| sample.ops_per_s)),
            cpu_ns_per_op: median(mine.iter().map(|sample| sample.cpu_ns_per_op)),
            p50_us: median(mine.iter().map(|sample| sample.p50_us)),
            p99_us: median(mine.iter().map(|sample| sample.p99_us)),
            ratio: over(|sample| sample.ops_per_s),
            cpu_ratio: over(|sample| sample.cpu_ns_per_op),
            ours_ratio: ours_over(|sample| sample.ops_per_s),
            ours_cpu_ratio: ours_over(|sample| sample.cpu_ns_per_op),
            ..row.clone()
        }
    });
    rows.collect()
}

/// The median of the ratios within each round.
fn ratio(one: &[Sample], other: &[Sample], of: fn(&Sample) -> f64) -> Option<f64> {
    median(one.iter().zip(other).map(|(one, other)| of(one) / of(other)))
}

fn turns_for(trial: &Sample, callers: usize, round: Duration) -> usize {
    ((trial.ops_per_s * round.as_secs_f64() / callers as f64) as usize).max(1)
}

/// The middle of `values`; `None` of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
