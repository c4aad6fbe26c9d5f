//! Random histories of callers, writers and faults over several processes with a cache, in virtual time.
//!
//! Each history draws its options (TTL, stale time, early refresh, jitter, back-off, soft time-out, lock
//! and retry delay), what a call of the store takes, and two dozen calls of `guarded_get`, `Cache::get`,
//! `Cache::get_many`, `put` and `invalidate` at random moments, some of which go away half-way. The
//! computations take their time, fail, panic or hang. In every third history calls of the store fail.
//!
//! # What is asserted
//!
//! Always:
//!
//! * no value is served when it is older than TTL and stale time together, counted from the end of its
//!   computation, nor called fresh when it is older than its TTL;
//! * every caller is answered or gone within a bounded time, with an error of those that are documented;
//! * at the end there is no lock and no flight, and every value expires.
//!
//! And in histories without faults:
//!
//! * no value is served that was computed before an invalidation or a write which had ended before its
//!   reader asked, but for a round trip;
//! * two computations of one key overlap only after `lock_ttl`, or where the lock was deleted;
//! * after a failed computation of one key there is none for the back-off, unless an invalidation or a
//!   write ended it.
//!
//! # Running it
//!
//! `DERP_KV_HISTORIES` says how many there are (2,000), `DERP_KV_HISTORY_SEED` with which it begins. A
//! failure names the seed of its history.

#[path = "cache_histories/dice.rs"]
mod dice;
#[path = "cache_histories/judge.rs"]
mod judge;
#[path = "cache_histories/log.rs"]
mod log;
#[path = "cache_histories/net.rs"]
mod net;
#[path = "cache_histories/plan.rs"]
mod plan;
#[path = "cache_histories/run.rs"]
mod run;

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use judge::Tally;
use tokio::runtime::Builder;

const HISTORIES: u64 = 2_000;

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")))
}

/// Runs the history of a seed. Its runtime ends with it.
fn history(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let plan = plan::Plan::draw(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let judged =
        runtime.block_on(run::run(&plan, seed)).and_then(|log| judge::judge(&plan, &log, tally));
    judged.map_err(|what| format!("history {seed}: {what}\n{plan:?}"))
}

#[test]
fn histories_keep_to_the_contract() {
    let first = setting("DERP_KV_HISTORY_SEED").unwrap_or(1);
    let end = first + setting("DERP_KV_HISTORIES").unwrap_or(HISTORIES);
    let next = AtomicU64::new(first);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= end {
                return Ok(tally);
            }
            if let Err(what) = history(seed, &mut tally) {
                next.store(end, Ordering::SeqCst);
                return Err(what);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let tallies: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut all = Tally::default();
    for tally in tallies {
        all += tally.unwrap_or_else(|what| panic!("{what}"));
    }
    println!("\n{} histories: {all:?}", end - first);
}
