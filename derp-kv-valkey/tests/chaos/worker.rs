//! A client process: many callers on one store, which does what its parent tells it by lines.

use std::env;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use derp_kv_core::KvStore;
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::callers;
use crate::desk::{Answer, Caller, Desk, OP_TIMEOUT};
use crate::dice::millis_since;
use crate::report::{GROUPS, Place, STABLE_KEYS, stable_key};

/// The number of the process; a test process without it is none of these.
pub(crate) const PROCESS: &str = "DERP_KV_CHAOS_PROCESS";
pub(crate) const ADDRESSES: &str = "DERP_KV_CHAOS_ADDRESSES";
/// What a line of an answer begins with: the test harness prints lines of its own.
pub(crate) const ANSWER: &str = "chaos|";
/// How long is waited for the callers after a fault has healed.
pub(crate) const NEVER: Duration = Duration::from_secs(20);

/// Runs until the parent says stop, or is gone.
pub(crate) async fn run() {
    let Ok(process) = env::var(PROCESS) else { return };
    let process: usize = process.parse().expect("a number");
    let addresses = env::var(ADDRESSES).expect("addresses");
    let addresses =
        addresses.split(',').map(|port| ("127.0.0.1", port.parse().expect("a port number")));
    let config =
        ValkeyConfig::default().addresses(addresses).mode(Mode::Cluster).op_timeout(OP_TIMEOUT);
    let kv = ValkeyStore::connect(config).await.expect("connect");
    if process == 0 {
        let keys: Vec<_> = (0..STABLE_KEYS).map(stable_key).collect();
        let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b"v"[..])).collect();
        kv.mset(&items, None).await.expect("mset");
    }
    let desk = Arc::new(Desk::new(kv, process));
    let mut tasks = JoinSet::new();
    let callers = start(&desk, &mut tasks);
    tokio::spawn(measure_stalls(Arc::clone(&desk)));
    println!("\n{ANSWER}ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "turn" => {
                for group in rest.split(' ') {
                    desk.turn(group.parse().expect("a group")).await;
                }
                println!("{ANSWER}turned");
            }
            "healed" => {
                let (fresh, every, last) =
                    recovery(&desk, &callers, rest.parse().expect("a time")).await;
                println!("{ANSWER}{fresh} {every} {last}");
            }
            _ => {
                desk.stop.store(true, Ordering::Relaxed);
                while let Some(ended) = tasks.join_next().await {
                    ended.expect("a caller ends");
                }
                println!("{ANSWER}{}", serde_json::to_string(&desk.close()).expect("JSON"));
            }
        }
    }
}

/// Starts the callers, and gives those whose next success shows that the store is back.
fn start(desk: &Arc<Desk>, tasks: &mut JoinSet<()>) -> Vec<Caller> {
    let mut callers = Vec::new();
    let mut known = |what: &str, number| {
        let caller = Caller::new(desk, what, number);
        callers.push(caller.clone());
        caller
    };
    for group in 0..GROUPS {
        for number in [group, group + GROUPS] {
            tasks.spawn(callers::counter(known("counter", number), group));
            tasks.spawn(callers::register(known("register", number), group, number));
            tasks.spawn(callers::lock(known("lock", number), group));
        }
        tasks.spawn(callers::maker(known("maker", group), group));
        tasks.spawn(callers::waiter(known("waiter", group), group));
    }
    for number in 0..4 {
        tasks.spawn(callers::batch(known("batch", number), number));
    }
    for number in 0..2 {
        tasks.spawn(callers::scan(known("scan", number)));
    }
    for number in 0..6 {
        // One that waits for the lock of a page which nobody could free says nothing of the store.
        tasks.spawn(callers::reader(Caller::new(desk, "reader", number), number));
    }
    callers
}

/// How many milliseconds after `healed` a new call has succeeded in every group, and how many
/// after it every caller has had a success; and which caller was the last.
async fn recovery(desk: &Arc<Desk>, callers: &[Caller], healed: u64) -> (u64, u64, String) {
    desk.healed.store(healed, Ordering::Relaxed);
    let probes = join_all((0..GROUPS).map(|group| probe(desk, group, healed)));
    let every = async {
        let give_up = Instant::now() + NEVER;
        let mut longest = (0, "none");
        for caller in callers {
            while caller.back.load(Ordering::Relaxed) <= healed && Instant::now() < give_up {
                sleep(Duration::from_millis(2)).await;
            }
            let took = match caller.back.load(Ordering::Relaxed).checked_sub(healed) {
                None | Some(0) => millis_since(healed),
                Some(nanos) => nanos / 1_000_000,
            };
            longest = longest.max((took, &caller.name));
        }
        longest
    };
    let (probes, (every, last)) = tokio::join!(probes, every);
    (probes.into_iter().max().unwrap_or_default(), every, last.to_owned())
}

async fn probe(desk: &Arc<Desk>, group: usize, healed: u64) -> u64 {
    let caller = Caller::new(desk, "probe", group);
    let key = Place { group, era: 0 }.key("probe");
    let (kv, key) = (&desk.kv, key.as_bytes());
    let reads = first_success(async || is_done(caller.call("get", kv.get(key)).await));
    let writes = first_success(async || is_done(caller.call("incr", kv.incr(key, 1, None)).await));
    let _ = timeout(NEVER, async { tokio::join!(reads, writes) }).await;
    millis_since(healed)
}

/// Begins another call every 50 ms until one succeeds, and drops the others.
async fn first_success(call: impl AsyncFn() -> bool) {
    let mut calls = FuturesUnordered::new();
    loop {
        calls.push(call());
        let again = sleep(Duration::from_millis(50));
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                Some(done) = calls.next() => if done { return },
            }
        }
    }
}

fn is_done<T>(answer: Answer<T>) -> bool {
    matches!(answer, Answer::Is(_))
}

/// Where the machine does not let the process run, calls last longer for no fault of theirs.
async fn measure_stalls(desk: Arc<Desk>) {
    const TICK: Duration = Duration::from_millis(20);
    loop {
        let began = Instant::now();
        sleep(TICK).await;
        let late = began.elapsed().saturating_sub(TICK).as_millis();
        let mut report = desk.report();
        report.stall_ms = report.stall_ms.max(u64::try_from(late).unwrap_or(u64::MAX));
    }
}
