//! Faults at random on a cluster of three primaries with a replica each, under the callers of two
//! processes.
//!
//! The faults: primaries and replicas killed, primaries stopped for less and for more than the
//! nodes wait for each other, failovers that were asked for, slots moved in both ways, black holes
//! and cuts between the clients and one node or all, `CLIENT PAUSE` and `CLIENT KILL`. There is one at
//! a time (with connections cut beside some), and the next comes when the cluster is whole.
//!
//! # What is asserted
//!
//! Always, whatever happens:
//!
//! * no hang: each call ends within its own bound;
//! * no wrong caller: a value that is read names its key and was written to it, whole; a scan that
//!   ends without an error has yielded every key that was there all the time, and no other;
//! * no over-count: no more increments are in a counter than were acknowledged or may have been
//!   applied by what their errors say;
//! * nothing denied: a write that failed without `may_have_applied`, or that said `false`, is never
//!   seen to have been done;
//! * no lasting error: each says that trying again may help;
//! * recovery: a bounded time after the servers are well again (by their own account: each slot has a
//!   live primary that serves it), new calls succeed, and every caller has had a success. The two
//!   are told apart because a write that was under way in a hole cannot be sent again: its caller
//!   is back when its deadline has passed.
//!
//! And except where a primary dies (it is killed, stopped, or cut off from the nodes, until its
//! replica takes over):
//!
//! * nothing that was acknowledged is lost, and no value of a counter is given twice;
//! * no caller reads a value older than what it has read or written. A write that may have been
//!   applied may also be applied late, after others of the same caller: it may show at any time, once;
//! * never do two callers hold a lease at one time; of all who swap the same value of a register one
//!   succeeds; of all who make a key one succeeds.
//!
//! The exception is the servers': a primary acknowledges before its replica has the write, so what it
//! has acknowledged last may die with it, and one that lives goes on acknowledging until it hears of its
//! successor. To keep it small, each key is of an *era*. Before a
//! death, the keys of that shard are left for new ones, and the replica gets all that was written to
//! the old ones, for which everything above holds; so it does for those that follow when the cluster
//! is whole. Where the nodes take one for dead that was only slow, as may happen on a busy machine,
//! the present era is given up as well, and that is counted.
//!
//! Clients are cut off from nodes by proxies, which also stand between a primary and its replica.
//! Nodes are cut off from each other in one way only, and with Valkey 9: a primary no longer hears
//! the others, which promote its replica, while clients reach both.
//!
//! # Running it
//!
//! `DERP_KV_CHAOS_SECONDS` sets how long it goes on (60), `DERP_KV_CHAOS_SEED` the order of the faults;
//! `scripts/chaos.sh SECONDS` shows the schedule as it happens.

#[path = "chaos/callers.rs"]
mod callers;
#[path = "chaos/worker.rs"]
mod client_process;
#[path = "chaos/clients.rs"]
mod clients;
#[path = "chaos/desk.rs"]
mod desk;
#[path = "chaos/dice.rs"]
mod dice;
#[path = "chaos/fault.rs"]
mod fault;
#[path = "chaos/faults.rs"]
mod faults;
#[path = "chaos/judge.rs"]
mod judge;
#[path = "chaos/own.rs"]
mod own;
#[path = "chaos/register.rs"]
mod register;
#[path = "chaos/report.rs"]
mod report;
#[path = "chaos/stage.rs"]
mod stage;

use std::env;
use std::time::Duration;

use clients::Clients;
use dice::Dice;
use faults::Chaos;
use judge::Verdict;
use stage::Stage;

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
}

/// One of the two client processes, which the test starts from its own binary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker() {
    client_process::run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_done_twice_or_hangs() {
    let time = Duration::from_secs(setting("DERP_KV_CHAOS_SECONDS").unwrap_or(60));
    let seed =
        setting("DERP_KV_CHAOS_SEED").unwrap_or_else(|| Dice::new(dice::now()).next() % 1_000_000);
    println!("\nchaos for {time:?}: DERP_KV_CHAOS_SEED={seed}");
    let stage = Stage::open().await.expect("a cluster");
    let addresses: Vec<_> = stage.proxies.iter().map(|proxy| proxy.port().to_string()).collect();
    let clients = Clients::start(&addresses.join(",")).await.expect("client processes");
    let mut chaos = Chaos::new(stage, clients, Dice::new(seed));
    let raged = chaos.rage(time).await;
    if let Err(error) = &raged {
        println!("chaos ends early: {error}");
    }
    let reports = chaos.clients.stop().await.expect("reports");
    let verdict = Verdict::of(reports, &chaos).await.expect("the counters");
    verdict.print(&chaos);
    raged.expect("a fault that could not be made, or was not over");
    let faults = verdict.faults(&chaos);
    assert!(faults.is_empty(), "with DERP_KV_CHAOS_SEED={seed}:\n{}", faults.join("\n"));
}
