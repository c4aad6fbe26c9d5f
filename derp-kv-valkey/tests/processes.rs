//! The helpers in several operating-system processes on one server.
//!
//! The test binary starts itself again as a worker: [`worker`] is a test that does nothing unless
//! the environment says what to do.

mod common;

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use common::stage::{ROLE, Stage, setting, stores_of_worker, succeed, unix_millis, wait_until};
use derp_kv_core::{Error, ErrorKind, GuardedGet, Idempotency, KvStore, KvStoreExt};
use derp_kv_valkey::ValkeyStore;
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

const CALLERS: &str = "DERP_KV_TEST_CALLERS";
const SLOW_MS: &str = "DERP_KV_TEST_SLOW_MS";
/// A worker begins at the start of this number.
const WAVE: &str = "DERP_KV_TEST_WAVE";

/// Only guards against a hang.
const HANG: Duration = Duration::from_secs(60);
const LOCK_TTL: Duration = Duration::from_secs(2);
const KEY: &[u8] = b"page";
const LOCK: &[u8] = b"page:lock";
const RECORD_LOCK: &[u8] = b"derp:idempotency:order:lock";
/// How many computations began, and how many workers are ready to start.
const BEGAN: &[u8] = b"began";
const READY: &[u8] = b"ready";
const START: &[u8] = b"start";
/// The longest wait of a caller, in milliseconds, for each process.
const LONGEST: &str = "longest:";

impl Stage {
    fn spawn(&self, role: &str, callers: usize, slow: Duration) -> Child {
        self.spawn_for(1, role, callers, slow)
    }

    fn spawn_for(&self, wave: i64, role: &str, callers: usize, slow: Duration) -> Child {
        self.worker(role)
            .env(CALLERS, callers.to_string())
            .env(SLOW_MS, slow.as_millis().to_string())
            .env(WAVE, wave.to_string())
            .spawn()
            .expect("start a worker")
    }

    /// Lets the workers begin once that many are ready, and counts commands from there on.
    async fn start(&self, workers: usize) {
        wait_until(&self.control, READY, i64::try_from(workers).unwrap()).await;
        self.server.command(&["CONFIG", "RESETSTAT"]).await.unwrap();
        self.control.incr(START, 1, None).await.unwrap();
    }

    /// The longest wait of any caller of any process that lived to the end.
    async fn longest_wait(&self) -> Duration {
        let keys: Vec<_> = self.control.scan(LONGEST.as_bytes()).try_collect().await.unwrap();
        let mut longest = Duration::ZERO;
        for key in keys {
            let millis = self.control.get(&key).await.unwrap().expect("what a process wrote");
            let millis = std::str::from_utf8(&millis).unwrap().parse().unwrap();
            longest = longest.max(Duration::from_millis(millis));
        }
        longest
    }

    /// One row of the table of scenarios.
    async fn report(&self, scenario: &str, executions: &str, took: Duration) {
        let commands: u64 = self.calls().await.values().sum();
        let (took, longest) = (took.as_secs_f64(), self.longest_wait().await.as_secs_f64());
        self.no_lock_is_left().await;
        println!(
            "\nprocesses | {scenario} | {executions} | {commands} | {took:.2} s | {longest:.2} s | no lock"
        );
    }

    async fn executions(&self) -> String {
        let count = self.control.get(BEGAN).await.unwrap().expect("something was computed");
        String::from_utf8_lossy(&count).into_owned()
    }

    /// What clients have sent since the start, by command.
    async fn calls(&self) -> BTreeMap<String, u64> {
        let info = self.server.command(&["INFO", "commandstats"]).await.unwrap();
        info.text()
            .unwrap()
            .lines()
            .filter_map(|line| {
                let (name, stats) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
                let calls = stats.split(',').next()?.parse().ok()?;
                (!["auth", "config|resetstat", "info", "pexpiretime"].contains(&name))
                    .then(|| (name.to_owned(), calls))
            })
            .collect()
    }

    async fn no_lock_is_left(&self) {
        for lock in [LOCK, RECORD_LOCK] {
            assert_eq!(self.kv.get(lock).await.unwrap(), None, "a lock is left");
        }
    }
}

fn number(name: &str) -> u64 {
    setting(name).expect("set by the test")
}

/// One process of callers, which start together with those of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker() {
    let Ok(role) = env::var(ROLE) else { return };
    let (kv, control) = stores_of_worker().await;
    let slow = Duration::from_millis(number(SLOW_MS));
    control.incr(READY, 1, None).await.unwrap();
    wait_until(&control, START, i64::try_from(number(WAVE)).unwrap()).await;
    let calls = (0..number(CALLERS)).map(|_| {
        let (kv, control, role) = (kv.clone(), control.clone(), role.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            match role.as_str() {
                "cache" => cached(&kv, &control, slow).await,
                "idempotent" => ordered(&kv, &control, slow).await,
                role => panic!("no role {role}"),
            }
            began.elapsed()
        })
    });
    let waits = join_all(calls.collect::<Vec<_>>()).await;
    let longest = waits.into_iter().map(|wait| wait.unwrap()).max().unwrap_or_default();
    let key = format!("{LONGEST}{}", std::process::id());
    control.set(key.as_bytes(), longest.as_millis().to_string().as_bytes(), None).await.unwrap();
}

async fn cached(kv: &ValkeyStore, control: &ValkeyStore, slow: Duration) {
    let options = GuardedGet::new(Duration::from_secs(300)).lock_ttl(LOCK_TTL);
    let value = kv
        .guarded_get(KEY, &options, || async {
            control.incr(BEGAN, 1, None).await?;
            sleep(slow).await;
            Ok::<_, Error>("value")
        })
        .await;
    assert_eq!(value.unwrap(), "value");
}

/// As a client does that tries again while it is told to.
async fn ordered(kv: &ValkeyStore, control: &ValkeyStore, slow: Duration) {
    loop {
        let options = Idempotency::default().status_code(201).lock_ttl(LOCK_TTL);
        let outcome = kv
            .idempotent_execute("order", &options, || async {
                let run = control.incr(BEGAN, 1, None).await?.value;
                sleep(slow).await;
                Ok::<_, Error>(run)
            })
            .await;
        match outcome {
            Ok(outcome) => return assert_eq!((outcome.body, outcome.status_code), (1, 201)),
            Err(error) if error.kind() == ErrorKind::InProgress => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_herd_in_four_processes_computes_once() {
    for role in ["cache", "idempotent"] {
        let stage = Stage::open().await;
        let slow = Duration::from_millis(300);
        let workers: Vec<_> = (0..4).map(|_| stage.spawn(role, 50, slow)).collect();
        stage.start(workers.len()).await;
        let began = Instant::now();
        succeed(workers).await;
        assert_eq!(stage.executions().await, "1", "{role}");
        stage.report(&format!("4 x 50, {role}, 0.3 s"), "1", began.elapsed()).await;
    }
}

#[tokio::test]
async fn a_killed_holder_is_succeeded_by_exactly_one() {
    let stage = Stage::open().await;
    // It would compute for ever.
    let mut holder = stage.spawn("cache", 1, Duration::from_secs(3600));
    stage.start(1).await;
    wait_until(&stage.control, BEGAN, 1).await;
    let waiters: Vec<_> =
        (0..3).map(|_| stage.spawn("cache", 20, Duration::from_millis(300))).collect();
    wait_until(&stage.control, READY, 4).await;
    holder.kill().await.unwrap();
    let killed = Instant::now();
    wait_until(&stage.control, BEGAN, 2).await;
    let succeeded = killed.elapsed();
    succeed(waiters).await;
    assert_eq!(stage.executions().await, "2", "one successor");
    stage.report("3 x 20, holder killed", "1 + 1", succeeded).await;
}

#[tokio::test]
async fn a_holder_killed_after_renewals_is_succeeded_when_its_lock_expires() {
    join_all((0..3).map(holder_killed_after)).await;
}

/// Six processes wait for a holder from its beginning on; it is killed after so many renewals.
async fn holder_killed_after(renewals: u32) {
    let stage = Stage::open().await;
    let mut holder = stage.spawn("cache", 1, Duration::from_secs(3600));
    let waiters: Vec<_> =
        (0..6).map(|_| stage.spawn_for(2, "cache", 1, Duration::from_secs(1))).collect();
    stage.start(7).await;
    wait_until(&stage.control, BEGAN, 1).await;
    stage.control.incr(START, 1, None).await.unwrap();

    let mut expires = stage.expires(LOCK).await;
    for _ in 0..renewals {
        let renewed = async {
            loop {
                match stage.expires(LOCK).await {
                    same if same == expires => sleep(Duration::from_millis(5)).await,
                    later => return later,
                }
            }
        };
        expires = timeout(HANG, renewed).await.expect("the lease was not renewed");
    }
    // Well before the next renewal, which comes after a third of a TTL.
    sleep(LOCK_TTL / 24).await;
    holder.kill().await.unwrap();
    let killed = Instant::now();
    assert_eq!(stage.expires(LOCK).await, expires, "killed after another renewal");

    wait_until(&stage.control, BEGAN, 2).await;
    let (succeeded, now) = (killed.elapsed(), unix_millis());
    assert!(now >= expires, "{} ms before the lock of the dead expired", expires - now);
    assert!(now - expires < 500, "{} ms after the lock of the dead expired", now - expires);
    succeed(waiters).await;
    assert_eq!(stage.executions().await, "2", "one successor");
    let scenario = format!("6 x 1, holder killed after renewal {renewals}");
    stage.report(&scenario, "1 + 1", succeeded).await;
}

#[tokio::test]
async fn slow_idempotent_work_runs_once_and_is_renewed() {
    let stage = Stage::open().await;
    let slow = LOCK_TTL * 5 / 2;
    let workers: Vec<_> = (0..3).map(|_| stage.spawn("idempotent", 5, slow)).collect();
    stage.start(workers.len()).await;
    wait_until(&stage.control, BEGAN, 1).await;
    let began = Instant::now();
    let token = stage.kv.get(RECORD_LOCK).await.unwrap().expect("the holder has the lock");
    // Longer than a lease lives that nobody renews.
    sleep(LOCK_TTL + LOCK_TTL / 20).await;
    let held = stage.kv.get(RECORD_LOCK).await.unwrap();
    assert_eq!(held, Some(token), "the lease was not renewed");
    succeed(workers).await;
    assert_eq!(stage.executions().await, "1");
    stage.report("3 x 5, idempotent, 5 s", "1", began.elapsed()).await;
}

#[tokio::test]
async fn a_herd_of_a_thousand_keeps_to_its_commands() {
    let stage = Stage::open().await;
    let slow = Duration::from_millis(500);
    let workers: Vec<_> = (0..2).map(|_| stage.spawn("cache", 500, slow)).collect();
    stage.start(workers.len()).await;
    let began = Instant::now();
    succeed(workers).await;
    let took = began.elapsed();
    assert_eq!(stage.executions().await, "1");
    let calls = stage.calls().await;
    println!("{calls:?}");
    // Even with what scripts run inside the server counted beside their EVALSHA.
    let sent: u64 = calls.values().sum();
    assert!(sent <= 1000 + 80, "{sent} commands: {calls:?}");
    stage.report("2 x 500, 0.5 s", "1", took).await;
}
