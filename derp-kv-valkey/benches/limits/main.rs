//! The most that rate limits admit in any window, on a real server and in real time: many callers at
//! once, each of which asks for a while and pauses for a while.
//!
//! Prints a table of what was measured, with its bounds. Ends with exit code 1 where one is broken.

#[path = "../support/mod.rs"]
mod support;

mod asked;
mod callers;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use derp_kv_core::RateLimit;
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};

use callers::Crowd;
use support::Args;
use support::ledger::{Bound, Ledger, Limit};

/// Guards against what hangs, not measures.
const LONGEST: Duration = Duration::from_secs(600);
/// Of each limit, in each window.
const LIMIT: u64 = 100;
/// How many arrivals there are in all.
const ARRIVALS: (usize, usize) = (1_000_000, 2_000);
/// In milliseconds.
const WINDOWS: [u64; 3] = [200, 500, 1_000];

/// A limit, and what it promises for a window of so many milliseconds.
struct Subject {
    name: &'static str,
    limit: fn(Duration) -> RateLimit,
    at_most: fn(u64) -> u64,
}

/// Of a smooth limit in a time as long as its period.
fn smooth(burst: u64, window: u64) -> u64 {
    burst + LIMIT * (window + 1) / window
}

const SUBJECTS: [Subject; 4] = [
    Subject { name: "new", limit: |window| RateLimit::new(LIMIT, window), at_most: |_| 2 * LIMIT },
    Subject {
        name: "smooth",
        limit: |window| RateLimit::smooth(LIMIT, window),
        at_most: |window| smooth(LIMIT, window),
    },
    Subject {
        name: "smooth, a burst of 10",
        limit: |window| RateLimit::smooth(LIMIT, window).burst(LIMIT / 10),
        at_most: |window| smooth(LIMIT / 10, window),
    },
    Subject {
        name: "strict",
        limit: |window| RateLimit::strict(LIMIT, window),
        at_most: |_| LIMIT,
    },
];

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse()?;
    let mut ledger = Ledger::new(&args, "limits")?;
    let measured = measure(&args, &mut ledger);
    tokio::time::timeout(LONGEST, measured).await.context("it hangs")??;
    Ok(ledger.verdict())
}

async fn measure(args: &Args, ledger: &mut Ledger) -> Result<()> {
    let server = Server::start().await?;
    let config = ValkeyConfig::default().addresses([("127.0.0.1", server.port())]);
    let store = ValkeyStore::connect(config.op_timeout(Duration::from_secs(10))).await?;
    let windows = if args.short { &WINDOWS[..1] } else { &WINDOWS[..] };
    let arrivals = if args.short { ARRIVALS.1 } else { ARRIVALS.0 };
    let each = arrivals.div_ceil(SUBJECTS.len() * windows.len());
    for subject in SUBJECTS {
        for millis in windows {
            let window = Duration::from_millis(*millis);
            let prefix = format!("crowd:{}:{millis}", subject.name);
            let crowd = Crowd { prefix, limit: (subject.limit)(window), window, arrivals: each };
            let asked = crowd.ask(&store).await?;
            let bench = format!("`{}`, {LIMIT} in {millis} ms", subject.name);
            let at_most = |most: u64| Bound::Count(Limit::AtMost(most as f64));
            ledger.note(&bench, "arrivals", asked.arrivals as f64, Bound::None)?;
            ledger.note(&bench, "of them without an answer", asked.errors as f64, Bound::None)?;
            let most = asked.most_within(window) as f64;
            let subject_of = "certainly admitted in one window, at most";
            ledger.note(&bench, subject_of, most, at_most((subject.at_most)(*millis)))?;
        }
    }
    Ok(())
}
