//! A worker: a process that works under idempotency keys, tells what comes of it, and may stop at a moment
//! that it was told, to be killed there.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{
    Error, ErrorKind, Idempotency, KvStore, KvStoreExt, Layer, Layered, OnAbandoned, Operation,
    Result,
};
use derp_kv_valkey::ValkeyStore;
use futures_util::future::{join, join_all};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use crate::common::stage::{ROLE, Stage, stores_of_worker};

/// Keys to work under, separated by spaces.
const KEYS: &str = "DERP_KV_TEST_KEYS";
/// What the keys begin with that nobody has worked under yet.
const FRESH: &str = "DERP_KV_TEST_FRESH";
/// Where the worker stops.
const STOP: &str = "DERP_KV_TEST_STOP";
const RERUN: &str = "DERP_KV_TEST_RERUN";

pub(crate) const LOCK_TTL: Duration = Duration::from_millis(500);
/// Only guards against a hang.
const HANG: Duration = Duration::from_secs(60);
/// What is told stands behind this, for a test binary has words of its own.
const MARK: &str = "> ";
/// How many fresh keys a worker works under at the same time, and one after the other.
const SIDE_BY_SIDE: u32 = 4;
const IN_A_ROW: u32 = 20;
/// A caller waits for `LOCK_TTL` each time, and so does the lock of the dead only once.
const TRIES: u32 = 5;

const SIGKILL: i32 = 9;

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// It has done the work.
    Ran,
    Replayed,
    Abandoned,
}

const ENDS: [(&str, End); 3] =
    [("ran", End::Ran), ("replayed", End::Replayed), ("abandoned", End::Abandoned)];

/// What a worker tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It calls now.
    Begins(String),
    Ends(String, End),
    /// It has come to where it was to stop.
    Stopped,
}

fn tell(word: &str, key: &str) {
    println!("{MARK}{word} {key}");
}

fn parse(line: &str) -> Option<Told> {
    let (word, key) = line.strip_prefix(MARK)?.split_once(' ')?;
    let key = key.to_owned();
    Some(match word {
        "begins" => Told::Begins(key),
        "stopped" => Told::Stopped,
        word => Told::Ends(key, ENDS.into_iter().find(|(name, _)| *name == word)?.1),
    })
}

/// A moment at which a worker may be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before the command of this number is sent, which is 1 for the first.
    Before(u32),
    /// In the work, before its effect.
    Work,
    /// In the work, after its effect.
    Effect,
    /// When the call has returned.
    Returned,
}

impl Moment {
    fn name(self) -> String {
        match self {
            Self::Before(command) => command.to_string(),
            Self::Work => "work".to_owned(),
            Self::Effect => "effect".to_owned(),
            Self::Returned => "returned".to_owned(),
        }
    }

    fn of_environment() -> Option<Self> {
        Some(match env::var(STOP).ok()?.as_str() {
            "work" => Self::Work,
            "effect" => Self::Effect,
            "returned" => Self::Returned,
            command => Self::Before(command.parse().expect("a number")),
        })
    }

    /// Stops for good where this is the moment.
    async fn reached(self, stop: Option<Self>) {
        if stop == Some(self) {
            stopped().await;
        }
    }
}

/// Says so, and waits to be killed.
async fn stopped() {
    tell("stopped", "here");
    std::future::pending::<()>().await;
}

/// Stops before a command. Renewals do not count: when they are due depends on the machine.
#[derive(Clone, Debug)]
struct Stops {
    stop: Option<Moment>,
    sent: Arc<AtomicU32>,
}

impl Layer for Stops {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if operation != Operation::CompareAndSet {
            let number = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
            Moment::Before(number).reached(self.stop).await;
        }
        call.await
    }
}

pub(crate) fn options(on: OnAbandoned) -> Idempotency {
    Idempotency::default().lock_ttl(LOCK_TTL).on_abandoned(on)
}

/// How often the work under a key was done is counted here, on another server.
pub(crate) fn effect(key: &str) -> Vec<u8> {
    format!("effect:{key}").into_bytes()
}

#[derive(Clone)]
struct Worker {
    kv: Layered<ValkeyStore, Stops>,
    control: ValkeyStore,
    options: Idempotency,
    stop: Option<Moment>,
}

/// Does what the environment says, if it says anything.
pub(crate) async fn as_told() {
    let Ok(role) = env::var(ROLE) else { return };
    let (kv, control) = stores_of_worker().await;
    let stop = Moment::of_environment();
    let on = if env::var_os(RERUN).is_some() { OnAbandoned::Rerun } else { OnAbandoned::Reject };
    let kv = Layered::new(kv, Stops { stop, sent: Arc::default() });
    let worker = Worker { kv, control, options: options(on), stop };
    let keys = env::var(KEYS).expect("set by the test");
    let each = keys.split_whitespace().map(|key| worker.until_known(key));
    match role.as_str() {
        "settles" => drop(join_all(each).await),
        "goes on" => {
            join(join_all(each), worker.fresh()).await;
            std::future::pending().await
        }
        "forgets" => {
            for key in keys.split_whitespace() {
                worker.kv.idempotent_forget(key, &worker.options).await.unwrap();
                Moment::Returned.reached(stop).await;
            }
        }
        role => panic!("no role {role}"),
    }
}

impl Worker {
    /// Calls until it knows what became of the work.
    async fn until_known(&self, key: &str) {
        for _ in 0..TRIES {
            tell("begins", key);
            let work = || async {
                Moment::Work.reached(self.stop).await;
                self.control.incr(&effect(key), 1, None).await?;
                Moment::Effect.reached(self.stop).await;
                // The work goes on for a moment, so that processes are killed in it, too.
                sleep(Duration::from_millis(1)).await;
                Ok::<_, Error>(key.to_owned())
            };
            let end = match self.kv.idempotent_execute(key, &self.options, work).await {
                Ok(outcome) => {
                    assert_eq!(outcome.body, key);
                    if outcome.is_replay { End::Replayed } else { End::Ran }
                }
                Err(error) if error.kind() == ErrorKind::Abandoned => End::Abandoned,
                Err(error) if error.kind() == ErrorKind::InProgress => continue,
                Err(error) => panic!("{error:?}"),
            };
            Moment::Returned.reached(self.stop).await;
            let (name, _) = ENDS.into_iter().find(|(_, other)| *other == end).expect("listed");
            return tell(name, key);
        }
        panic!("`{key}` stays in progress, though its holder is dead");
    }

    /// Works under keys that all workers of a generation have in common.
    async fn fresh(&self) {
        let fresh = env::var(FRESH).expect("set by the test");
        let rows = (0..SIDE_BY_SIDE).map(async |row| {
            for number in 0..IN_A_ROW {
                self.until_known(&format!("{fresh}-{row}-{number}")).await;
            }
        });
        join_all(rows).await;
    }
}

/// How a worker is started.
#[derive(Clone, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) role: &'a str,
    pub(crate) on: OnAbandoned,
    pub(crate) keys: &'a [String],
    pub(crate) fresh: &'a str,
    pub(crate) stop: Option<Moment>,
}

/// A worker, as its test has it: killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(stage: &Stage, job: &Job<'_>) -> Self {
        let mut command: Command = stage.worker(job.role);
        command.env(KEYS, job.keys.join(" ")).env(FRESH, job.fresh);
        if job.on == OnAbandoned::Rerun {
            command.env(RERUN, "1");
        }
        if let Some(moment) = job.stop {
            command.env(STOP, moment.name());
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("start a worker");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    /// The next that it tells, or `None` at its end.
    pub(crate) async fn told(&mut self) -> Option<Told> {
        loop {
            let line = timeout(HANG, self.lines.next_line()).await.expect("a worker hangs");
            if let Some(told) = parse(&line.expect("a pipe")?) {
                return Some(told);
            }
        }
    }

    /// Sends it SIGKILL, waits for its end, and returns what it had told until then.
    pub(crate) async fn kill(mut self) -> Vec<Told> {
        self.child.start_kill().expect("a worker that lives");
        let rest = self.rest().await;
        let status = self.child.wait().await.unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "a worker ended before it was killed: {status}");
        rest
    }

    /// Waits until it has done what it was to do.
    pub(crate) async fn succeeds(mut self) -> Vec<Told> {
        let rest = self.rest().await;
        let status = self.child.wait().await.unwrap();
        assert!(status.success(), "a worker failed: {status}");
        rest
    }

    async fn rest(&mut self) -> Vec<Told> {
        let mut all = Vec::new();
        while let Some(told) = self.told().await {
            all.push(told);
        }
        all
    }
}

/// Whether anybody works under the key, may have done, and has done: lock, marker and record.
pub(crate) async fn state(kv: &ValkeyStore, key: &str) -> [bool; 3] {
    let record = format!("derp:idempotency:{key}");
    let (lock, marker) = (format!("{record}:lock"), format!("{record}:attempt"));
    let keys = [lock.as_bytes(), marker.as_bytes(), record.as_bytes()];
    let found = kv.mget(&keys).await.unwrap();
    [found[0].is_some(), found[1].is_some(), found[2].is_some()]
}

/// How often the work under each of the keys was done.
pub(crate) async fn effects(control: &ValkeyStore, keys: &[&str]) -> Vec<i64> {
    let keys: Vec<_> = keys.iter().map(|key| effect(key)).collect();
    let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
    let found = control.mget(&keys).await.unwrap();
    let count = |count: Bytes| std::str::from_utf8(&count).ok()?.parse().ok();
    found.into_iter().map(|found| found.map_or(0, |found| count(found).expect("a count"))).collect()
}
