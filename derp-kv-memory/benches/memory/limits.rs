//! Rate limits beside `governor`: the same work on the same keys, in interleaved rounds.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use derp_kv_core::{RateLimit, RateLimiter};
use derp_kv_memory::MemoryStore;
use governor::{DefaultKeyedRateLimiter, Quota};
use serde_json::{Value, json};

use crate::load::Load;
use crate::{median, runtime};

const ROUNDS: usize = 15;
/// So many calls an hour of each key that all are allowed, and so few that nearly all are denied.
const LIMITS: [(&str, u32); 2] = [("allowed", 100_000_000), ("denied", 1)];
const HOUR: Duration = Duration::from_secs(3600);

/// A keyed limit.
trait Limit: Clone + Send + Sync + 'static {
    /// Whether a call is allowed.
    fn ask(&self, key: &Bytes) -> impl Future<Output = Result<bool>> + Send;
}

impl Limit for RateLimiter<MemoryStore> {
    async fn ask(&self, key: &Bytes) -> Result<bool> {
        Ok(self.check(key).await?.allowed)
    }
}

impl Limit for Arc<DefaultKeyedRateLimiter<Bytes>> {
    async fn ask(&self, key: &Bytes) -> Result<bool> {
        Ok(self.check_key(key).is_ok())
    }
}

type Run = Box<dyn Fn(&Load, usize) -> Result<f64>>;

fn asking(limit: impl Limit, allowed: bool) -> Run {
    Box::new(move |load, threads| {
        load.run(threads, |load, thread| {
            runtime()?.block_on(async {
                let mut count = 0;
                for at in 0..load.ops() {
                    count += usize::from(limit.ask(load.key(at, thread)).await?);
                }
                // The first call of a key is allowed in either case.
                let most = load.ops() / 2;
                ensure!(!allowed || count > most, "{count} calls were allowed of {}", load.ops());
                Ok(())
            })
        })
    })
}

fn contenders(most: u32, allowed: bool) -> Result<Vec<(&'static str, Run)>> {
    let burst = NonZeroU32::new(most).context("a limit of 0")?;
    let quota = Quota::with_period(HOUR / most).context("a period of 0")?.allow_burst(burst);
    let ours = |limit: RateLimit| asking(RateLimiter::new(MemoryStore::new(), limit), allowed);
    let limit = u64::from(most);
    Ok(vec![
        ("governor", asking(Arc::new(DefaultKeyedRateLimiter::keyed(quota)), allowed)),
        ("derp-kv smooth", ours(RateLimit::smooth(limit, HOUR))),
        ("derp-kv strict", ours(RateLimit::strict(limit, HOUR))),
        ("derp-kv fixed", ours(RateLimit::new(limit, HOUR))),
    ])
}

pub(crate) fn compare_all(
    short: bool,
    only: Option<&str>,
    push: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<()> {
    let (keys, ops) = if short { (1_000, 1_000) } else { (100_000, 200_000) };
    for load in [Load::new(keys, ops), Load::new(1, ops)] {
        for (answer, most) in LIMITS {
            let contenders = contenders(most, most > 1)?;
            for threads in [1, 2] {
                let mut samples = vec![Vec::new(); contenders.len()];
                for round in 0..if short { 1 } else { ROUNDS } {
                    for at in (0..contenders.len()).map(|at| (at + round) % contenders.len()) {
                        let (name, run) = &contenders[at];
                        if only.is_none_or(|only| only == *name) {
                            samples[at].push(run(&load, threads)?);
                        }
                    }
                }
                for (at, (name, _)) in contenders.iter().enumerate() {
                    if samples[at].is_empty() {
                        continue;
                    }
                    let pairs = samples[at].iter().zip(&samples[0]);
                    let ratios: Vec<f64> = pairs.map(|(mine, other)| mine / other).collect();
                    let ratio = if ratios.is_empty() { 1.0 } else { median(ratios) };
                    push(json!({
                        "suite": "memory", "bench": format!("rate limit, {answer}"), "subject": name,
                        "threads": threads, "keys": load.key_count(),
                        "cpu_ns_per_op": median(samples[at].clone()), "cpu_ratio_governor": ratio,
                    }))?;
                }
            }
        }
    }
    Ok(())
}
