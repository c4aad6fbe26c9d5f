//! What the fault tests share.
#![allow(dead_code, reason = "each test target uses a part")]
#![allow(unreachable_pub, reason = "a module of several test targets")]

pub mod stage;

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use derp_kv_core::{Error, KvStore};
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use tokio::task::JoinSet;

/// Every operation of the fault tests ends by itself before this.
pub const OP_TIMEOUT: Duration = Duration::from_secs(2);
/// Only guards against a hang: the operation's own deadline, and plenty for a busy machine.
pub const HANG: Duration = Duration::from_secs(20);

pub fn config(address: (String, u16)) -> ValkeyConfig {
    ValkeyConfig::default().addresses([address]).op_timeout(OP_TIMEOUT)
}

pub async fn connect(address: (String, u16)) -> ValkeyStore {
    ValkeyStore::connect(config(address)).await.expect("connect")
}

pub async fn connect_cluster(addresses: Vec<(String, u16)>, op_timeout: Duration) -> ValkeyStore {
    let config =
        ValkeyConfig::default().addresses(addresses).mode(Mode::Cluster).op_timeout(op_timeout);
    ValkeyStore::connect(config).await.expect("connect")
}

/// The result, or a panic that names what hung.
pub async fn ends<T>(what: &str, operation: impl Future<Output = T>) -> T {
    match tokio::time::timeout(HANG, operation).await {
        Ok(result) => result,
        Err(_) => panic!("{what} hung past its deadline"),
    }
}

/// Repeats `operation` until it succeeds, and says how long that took; each try must end.
pub async fn recovers<T>(mut operation: impl AsyncFnMut() -> Result<T, Error>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        match ends("an operation during recovery", operation()).await {
            Ok(value) => return (value, start.elapsed()),
            Err(error) => {
                assert!(start.elapsed() < Duration::from_secs(60), "does not recover: {error:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// One row of the table of faults.
pub fn report_row(number: &str, fault: &str, saw: impl Display, back: Duration, lost: &str) {
    // The line break keeps the row apart from the test harness's own words.
    println!("\nfault | {number} | {fault} | {saw} | {:.2} s | {lost}", back.as_secs_f64());
}

/// What became of many increments of one key.
#[derive(Debug, Default)]
pub struct Tally {
    pub ok: i64,
    pub unknown: i64,
    pub failed: i64,
    pub slowest: Duration,
    values: HashSet<i64>,
}

impl Tally {
    pub fn add(&mut self, result: Result<derp_kv_core::Counter, Error>, took: Duration) {
        self.slowest = self.slowest.max(took);
        match result {
            Ok(counter) => {
                self.ok += 1;
                assert!(self.values.insert(counter.value), "{} was given twice", counter.value);
            }
            Err(error) if error.may_have_applied() => self.unknown += 1,
            Err(_) => self.failed += 1,
        }
    }

    pub fn merge(&mut self, other: Self) {
        self.ok += other.ok;
        self.unknown += other.unknown;
        self.failed += other.failed;
        self.slowest = self.slowest.max(other.slowest);
        for value in other.values {
            assert!(self.values.insert(value), "{value} was given to two callers");
        }
    }

    /// Nothing acknowledged is lost, and nothing is applied that no caller was told about.
    pub fn check(&self, stored: i64) {
        assert!(
            self.ok <= stored && stored <= self.ok + self.unknown,
            "the server counted {stored}, the callers {self}"
        );
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self { ok, unknown, failed, slowest, .. }, ms) = (self, self.slowest.as_millis());
        let _ = slowest;
        write!(f, "{ok} ok, {unknown} unknown, {failed} refused, slowest {ms} ms")
    }
}

/// Callers that increment keys until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: JoinSet<(usize, Tally)>,
    keys: usize,
}

impl Load {
    pub fn start(store: &ValkeyStore, keys: &[String], workers_per_key: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for (number, key) in keys.iter().enumerate() {
            for _ in 0..workers_per_key {
                let (store, key, stop) = (store.clone(), key.clone(), Arc::clone(&stop));
                workers.spawn(async move {
                    let mut tally = Tally::default();
                    while !stop.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        let result = ends("incr", store.incr(key.as_bytes(), 1, None)).await;
                        tally.add(result, start.elapsed());
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    (number, tally)
                });
            }
        }
        Self { stop, workers, keys: keys.len() }
    }

    /// One tally a key.
    pub async fn stop(mut self) -> Vec<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut tallies: Vec<Tally> = (0..self.keys).map(|_| Tally::default()).collect();
        while let Some(worker) = self.workers.join_next().await {
            let (number, tally) = worker.expect("a worker ends");
            tallies[number].merge(tally);
        }
        tallies
    }
}

/// The integer at `key`, 0 where there is none.
pub async fn stored(store: &ValkeyStore, key: &str) -> i64 {
    let (value, _) = recovers(async || store.get(key.as_bytes()).await).await;
    value.map_or(0, |bytes| std::str::from_utf8(&bytes).expect("digits").parse().expect("digits"))
}
