//! The in-memory store beside bare maps and caches: processor time, memory, expiry.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use dashmap::DashMap;
use derp_kv_core::KvStore;
use derp_kv_memory::{ManualClock, MemoryStore, OnFull};
use futures_util::TryStreamExt as _;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// What can be measured: the store, and what it is compared with.
trait Subject: Clone + Send + Sync + 'static {
    fn read(&self, key: &Bytes) -> impl Future<Output = Result<bool>> + Send;
    fn write(&self, key: &Bytes, value: &[u8]) -> impl Future<Output = Result<()>> + Send;
}

impl Subject for MemoryStore {
    async fn read(&self, key: &Bytes) -> Result<bool> {
        Ok(self.get(key).await?.is_some())
    }

    async fn write(&self, key: &Bytes, value: &[u8]) -> Result<()> {
        Ok(self.set(key, value, None).await?)
    }
}

impl Subject for Arc<DashMap<Bytes, Bytes>> {
    async fn read(&self, key: &Bytes) -> Result<bool> {
        Ok(self.get(key).map(|value| value.clone()).is_some())
    }

    async fn write(&self, key: &Bytes, value: &[u8]) -> Result<()> {
        self.insert(key.clone(), Bytes::copy_from_slice(value));
        Ok(())
    }
}

impl Subject for moka::sync::Cache<Bytes, Bytes> {
    async fn read(&self, key: &Bytes) -> Result<bool> {
        Ok(self.get(key).is_some())
    }

    async fn write(&self, key: &Bytes, value: &[u8]) -> Result<()> {
        self.insert(key.clone(), Bytes::copy_from_slice(value));
        Ok(())
    }
}

impl Subject for Arc<quick_cache::sync::Cache<Bytes, Bytes>> {
    async fn read(&self, key: &Bytes) -> Result<bool> {
        Ok(self.get(key).is_some())
    }

    async fn write(&self, key: &Bytes, value: &[u8]) -> Result<()> {
        self.insert(key.clone(), Bytes::copy_from_slice(value));
        Ok(())
    }
}

/// Reads and writes of skewed keys.
#[derive(Clone)]
struct Load {
    keys: Arc<Vec<Bytes>>,
    /// Which key comes when: Zipf's law, exponent 0.99.
    order: Arc<Vec<u32>>,
    ops: usize,
}

impl Load {
    fn new(keys: usize, ops: usize) -> Self {
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

    async fn fill(&self, subject: &impl Subject) -> Result<()> {
        for key in self.keys.iter() {
            subject.write(key, &[b'x'; 64]).await?;
        }
        Ok(())
    }

    /// Processor nanoseconds of one operation, of which `writes` in 100 are writes.
    fn run<S: Subject>(&self, subject: &S, threads: usize, writes: usize) -> Result<f64> {
        let before = clock(ClockId::ProcessCPUTime);
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let (load, subject) = (self.clone(), subject.clone());
                std::thread::spawn(move || -> Result<()> {
                    runtime()?.block_on(async {
                        for at in 0..load.ops {
                            let place = (at + thread * 7919) % load.order.len();
                            let key = &load.keys[load.order[place] as usize];
                            if at % 100 < writes {
                                subject.write(key, &[b'y'; 64]).await?;
                            } else {
                                ensure!(subject.read(key).await?, "a key is missing");
                            }
                        }
                        Ok(())
                    })
                })
            })
            .collect();
        let count = threads.len();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        let took = clock(ClockId::ProcessCPUTime) - before;
        Ok(took.as_nanos() as f64 / (self.ops * count) as f64)
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_time().build()?)
}

fn clock(id: ClockId) -> Duration {
    let spent = clock_gettime(id);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

type Contender = (&'static str, Box<dyn Fn(&Load, usize, usize) -> Result<f64>>);

fn contender<S: Subject>(name: &'static str, subject: S, load: &Load) -> Result<Contender> {
    runtime()?.block_on(load.fill(&subject))?;
    Ok((name, Box::new(move |load, threads, writes| load.run(&subject, threads, writes))))
}

fn bounded(bytes: u64) -> MemoryStore {
    MemoryStore::builder().max_bytes(bytes).on_full(OnFull::EvictCached).build()
}

fn moka_of(bytes: u64) -> moka::sync::Cache<Bytes, Bytes> {
    moka::sync::Cache::builder()
        .max_capacity(bytes)
        .weigher(|key: &Bytes, value: &Bytes| (key.len() + value.len()) as u32)
        .build()
}

/// Interleaved rounds, each pair of subjects compared within one round.
fn mixes(short: bool, push: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
    let (keys, ops, rounds) = if short { (1000, 1000, 1) } else { (100_000, 200_000, 7) };
    let load = Load::new(keys, ops);
    let contenders = [
        contender("dashmap", Arc::new(DashMap::new()), &load)?,
        contender("derp-kv unbounded", MemoryStore::new(), &load)?,
        contender("moka", moka_of(1 << 30), &load)?,
        contender("derp-kv bounded", bounded(1 << 30), &load)?,
        contender("quick_cache", Arc::new(quick_cache::sync::Cache::new(2 * keys)), &load)?,
    ];
    for (bench, writes) in [("get", 0), ("set", 100), ("mixed 90/10", 10)] {
        for threads in [1, 2] {
            let mut samples = vec![Vec::new(); contenders.len()];
            for round in 0..rounds {
                for at in (0..contenders.len()).map(|at| (at + round) % contenders.len()) {
                    samples[at].push(contenders[at].1(&load, threads, writes)?);
                }
            }
            for (at, (name, _)) in contenders.iter().enumerate() {
                let over = |first: usize| {
                    let pairs = samples[at].iter().zip(&samples[first]);
                    median(pairs.map(|(mine, other)| mine / other).collect())
                };
                push(json!({
                    "suite": "memory", "bench": bench, "subject": name, "threads": threads,
                    "value_bytes": 64, "keys": keys,
                    "cpu_ns_per_op": median(samples[at].clone()),
                    "cpu_ratio_dashmap": over(0), "cpu_ratio_moka": over(2),
                }))?;
            }
        }
    }
    Ok(())
}

/// The processor time of the slowest of many operations after everything expired together.
async fn mass_expiry(entries: usize) -> Result<Value> {
    let clock = ManualClock::new();
    let kv = MemoryStore::builder().clock(clock.clone()).build();
    let ttl = Some(Duration::from_secs(60));
    for entry in 0..entries {
        kv.set(format!("key:{entry:012}").as_bytes(), &[b'x'; 64], ttl).await?;
    }
    clock.advance(Duration::from_secs(61));
    let mut worst = Duration::ZERO;
    for at in 0..entries / 5 {
        let key = format!("new:{at:012}");
        let before = self::clock(ClockId::ThreadCPUTime);
        kv.set(key.as_bytes(), &[b'x'; 64], ttl).await?;
        ensure!(kv.get(key.as_bytes()).await?.is_some());
        worst = worst.max(self::clock(ClockId::ThreadCPUTime) - before);
    }
    Ok(json!({
        "suite": "memory", "bench": "worst operation after mass expiry",
        "subject": "derp-kv unbounded", "keys": entries, "worst_us": worst.as_nanos() as f64 / 1e3,
    }))
}

/// Finds one key in a hundred by its prefix.
async fn scan(entries: usize) -> Result<Value> {
    let kv = MemoryStore::new();
    for entry in 0..entries {
        kv.set(format!("{:02}:{entry:012}", entry % 100).as_bytes(), &[b'x'; 64], None).await?;
    }
    let mut spent = Vec::new();
    for _ in 0..5 {
        let before = self::clock(ClockId::ThreadCPUTime);
        let found: Vec<Bytes> = kv.scan(b"42:").try_collect().await?;
        ensure!(found.len() == entries / 100);
        let took = self::clock(ClockId::ThreadCPUTime) - before;
        spent.push(took.as_nanos() as f64 / 1e3);
    }
    Ok(json!({
        "suite": "memory", "bench": "scan of 1 % of the keys", "subject": "derp-kv unbounded",
        "keys": entries, "p50_us": median(spent),
    }))
}

const WITH_TTL: [&str; 2] = ["derp-kv unbounded", "moka"];

/// Resident memory of one entry, in a process of its own: freed memory would blur it.
async fn entry_size(subject: &str, entries: usize) -> Result<f64> {
    let ttl = Duration::from_secs(3600);
    let key = |entry: usize| format!("key:{entry:012}");
    let before = resident()?;
    let size = |before: usize| Ok((resident()? - before) as f64 / entries as f64);
    if subject == WITH_TTL[0] {
        let kv = MemoryStore::new();
        for entry in 0..entries {
            kv.set(key(entry).as_bytes(), &[b'x'; 64], Some(ttl)).await?;
        }
        let size = size(before);
        ensure!(kv.exists(key(0).as_bytes()).await?);
        return size;
    }
    if subject == WITH_TTL[1] {
        let cache = moka::sync::Cache::builder().time_to_live(ttl).build();
        for entry in 0..entries {
            cache.insert(Bytes::from(key(entry)), Bytes::from(vec![b'x'; 64]));
        }
        cache.run_pending_tasks();
        let size = size(before);
        ensure!(cache.contains_key(key(0).as_bytes()));
        return size;
    }
    bail!("nobody knows {subject}")
}

fn resident() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse::<usize>()? * 1024)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let value_of = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let short = args.iter().any(|arg| arg == "--short");
    let entries = if short { 10_000 } else { 1_000_000 };
    if let Some(subject) = value_of("--entry-size") {
        println!("{}", runtime()?.block_on(entry_size(&subject, entries))?);
        return Ok(());
    }
    let mut out = match value_of("--out") {
        Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
        None => None,
    };
    let mut push = |row: Value| -> Result<()> {
        println!("{row}");
        if let Some(out) = &mut out {
            writeln!(out, "{row}")?;
        }
        Ok(())
    };
    for subject in WITH_TTL {
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["--entry-size", subject]).args(short.then_some("--short"));
        let output = child.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bytes: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
        push(json!({
            "suite": "memory", "bench": "resident bytes of an entry with TTL", "subject": subject,
            "keys": entries, "value_bytes": 64, "bytes_per_entry": bytes,
        }))?;
    }
    for _ in 0..3 {
        push(runtime()?.block_on(mass_expiry(entries))?)?;
    }
    push(runtime()?.block_on(scan(entries))?)?;
    mixes(short, &mut push)
}
