//! Interleaved rounds of operations on skewed keys.

use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use derp_kv_memory::MemoryStore;
use rustix::time::ClockId;
use serde_json::{Value, json};

use crate::subject::{Atomic, Subject, bounded, foyer_of, moka_of, quick_cache_of};
use crate::{clock, median, runtime};

const ROUNDS: usize = 7;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    /// Of 100 operations so many write, the others read.
    Mix(usize),
    TakeAndFree,
    Count,
}

/// Each with its rounds: what has a bound to keep is to have the same median from run to run.
const MIXES: [(&str, Op, usize); 3] =
    [("get", Op::Mix(0), ROUNDS), ("set", Op::Mix(100), ROUNDS), ("mixed 90/10", Op::Mix(10), 31)];
const ATOMIC: [(&str, Op); 2] = [("set_nx and delete", Op::TakeAndFree), ("incr", Op::Count)];

#[derive(Clone)]
pub(crate) struct Load {
    keys: Arc<Vec<Bytes>>,
    /// Which key comes when: Zipf's law, exponent 0.99.
    order: Arc<Vec<u32>>,
    ops: usize,
}

impl Load {
    pub(crate) fn new(keys: usize, ops: usize) -> Self {
        let mut sum = 0.0;
        let cumulated: Vec<f64> = (1..=keys)
            .map(|rank| {
                sum += (rank as f64).powf(-0.99);
                sum
            })
            .collect();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let order = (0..1 << 18).map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = seed as f64 / u64::MAX as f64 * sum;
            cumulated.partition_point(|upto| *upto < at).min(keys - 1) as u32
        });
        let order = Arc::new(order.collect());
        let keys = (0..keys).map(|key| Bytes::from(format!("key:{key:012}")));
        Self { keys: Arc::new(keys.collect()), order, ops }
    }

    async fn fill(&self, subject: &impl Subject, value: &[u8]) -> Result<()> {
        for key in self.keys.iter() {
            subject.write(key, value).await?;
        }
        Ok(())
    }

    pub(crate) fn ops(&self) -> usize {
        self.ops
    }

    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn key(&self, at: usize, thread: usize) -> &Bytes {
        let place = (at + thread * 7919) % self.order.len();
        &self.keys[self.order[place] as usize]
    }

    async fn mix(&self, subject: &impl Subject, thread: usize, writes: usize) -> Result<()> {
        for at in 0..self.ops {
            let key = self.key(at, thread);
            if at % 100 < writes {
                subject.write(key, &[b'y'; 64]).await?;
            } else {
                ensure!(subject.read(key).await?, "a key is missing");
            }
        }
        Ok(())
    }

    async fn atomic(&self, subject: &impl Atomic, thread: usize, op: Op) -> Result<()> {
        for at in 0..self.ops {
            let key = self.key(at, thread);
            if op == Op::Count {
                subject.count(key).await?;
            } else {
                subject.take_and_free(key).await?;
            }
        }
        Ok(())
    }

    /// Processor nanoseconds of one operation.
    pub(crate) fn run(
        &self,
        threads: usize,
        work: impl Fn(&Self, usize) -> Result<()> + Send + Sync,
    ) -> Result<f64> {
        let before = clock(ClockId::ProcessCPUTime);
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                (0..threads).map(|thread| scope.spawn(move || work(self, thread))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
            })
        })?;
        let took = clock(ClockId::ProcessCPUTime) - before;
        Ok(took.as_nanos() as f64 / (self.ops * threads) as f64)
    }
}

/// Runs an operation on so many threads.
type Run = Box<dyn Fn(&Load, usize, Op) -> Result<f64>>;
type Contender = (&'static str, Run);

fn mixing<S: Subject>(name: &'static str, subject: S, load: &Load) -> Result<Contender> {
    runtime()?.block_on(load.fill(&subject, &[b'x'; 64]))?;
    let run: Run = Box::new(move |load, threads, op| {
        let Op::Mix(writes) = op else { anyhow::bail!("not a mix") };
        load.run(threads, |load, thread| runtime()?.block_on(load.mix(&subject, thread, writes)))
    });
    Ok((name, run))
}

fn counting<S: Atomic>(name: &'static str, subject: S, load: &Load, op: Op) -> Result<Contender> {
    if op == Op::Count {
        runtime()?.block_on(load.fill(&subject, b"0"))?;
    }
    let run: Run = Box::new(move |load, threads, op| {
        load.run(threads, |load, thread| runtime()?.block_on(load.atomic(&subject, thread, op)))
    });
    Ok((name, run))
}

/// Each pair of subjects is compared within one round. The first is dashmap, the third moka.
fn compare(
    bench: &str,
    op: Op,
    load: &Load,
    contenders: &[Contender],
    rounds: usize,
    push: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<()> {
    for threads in [1, 2] {
        let mut samples = vec![Vec::new(); contenders.len()];
        for round in 0..rounds {
            for at in (0..contenders.len()).map(|at| (at + round) % contenders.len()) {
                samples[at].push(contenders[at].1(load, threads, op)?);
            }
        }
        for (at, (name, _)) in contenders.iter().enumerate() {
            let over = |other: usize| {
                let pairs = samples[at].iter().zip(&samples[other]);
                median(pairs.map(|(mine, other)| mine / other).collect())
            };
            push(json!({
                "suite": "memory", "bench": bench, "subject": name, "threads": threads,
                "keys": load.keys.len(), "cpu_ns_per_op": median(samples[at].clone()),
                "cpu_ratio_dashmap": over(0), "cpu_ratio_moka": over(2),
            }))?;
        }
    }
    Ok(())
}

pub(crate) fn compare_all(short: bool, push: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
    let (keys, ops) = if short { (1000, 1000) } else { (100_000, 200_000) };
    let rounds = |rounds: usize| if short { 1 } else { rounds };
    let load = Load::new(keys, ops);
    let contenders = [
        mixing("dashmap", Arc::new(dashmap::DashMap::new()), &load)?,
        mixing("derp-kv unbounded", MemoryStore::new(), &load)?,
        mixing("moka", moka_of(1 << 30), &load)?,
        mixing("derp-kv bounded", bounded(1 << 30), &load)?,
        mixing("quick_cache", quick_cache_of(2 * keys), &load)?,
        mixing("foyer", foyer_of(2 * keys), &load)?,
    ];
    for (bench, op, count) in MIXES {
        compare(bench, op, &load, &contenders, rounds(count), push)?;
    }
    drop(contenders);
    for (bench, op) in ATOMIC {
        let contenders = [
            counting("dashmap", Arc::new(dashmap::DashMap::new()), &load, op)?,
            counting("derp-kv unbounded", MemoryStore::new(), &load, op)?,
            counting("moka", moka_of(1 << 30), &load, op)?,
            counting("derp-kv bounded", bounded(1 << 30), &load, op)?,
            counting("quick_cache", quick_cache_of(2 * keys), &load, op)?,
        ];
        compare(bench, op, &load, &contenders, rounds(ROUNDS), push)?;
    }
    Ok(())
}
