//! What `Cache` promises a fleet, on a real server: two processes refresh one value, whose origin is slow,
//! or fails, and whose refresh is cut off by a crash, or outdated by an invalidation.
//!
//! Prints a table of what was measured, with its bounds. Ends with exit code 1 where a bound of a count is
//! broken; times depend on the machine, and are only shown.

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod failing;
mod invalidated;
mod killed;
mod load;
mod steady;
mod task;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use derp_kv_core::{Cache, GuardedGet, Layered};
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};

use calls::Calls;
use support::Args;
use support::ledger::{self, Ledger};
use support::worker::{WORKER, Worker};

/// Guards against what hangs, not measures: of a part, and of all.
const LONG: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(600);
/// For how long stale values are served: longer than anything here takes.
const STALE: Duration = Duration::from_secs(3600);

type Store = Layered<ValkeyStore, Calls>;
/// What the callers of all processes ask.
type Pages = Cache<Store, String>;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == WORKER) {
        let port = words.get(1).context("a worker needs a port")?;
        task::work(port.parse().context("the port")?).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let args = Args::parse()?;
    let mut ledger = Ledger::new(&args, "fleet")?;
    let fleet = Fleet { server: Server::start().await?, short: args.short };
    let measured = measure(&fleet, &args, &mut ledger);
    tokio::time::timeout(LONGEST, measured).await.context("it hangs")??;
    Ok(ledger.verdict())
}

async fn measure(fleet: &Fleet, args: &Args, ledger: &mut Ledger) -> Result<()> {
    if args.wants("steady") {
        steady::measure(fleet, ledger).await?;
    }
    if args.wants("failing") {
        failing::measure(fleet, ledger).await?;
    }
    if args.wants("killed") {
        killed::measure(fleet, ledger).await?;
    }
    if args.wants("invalidated") {
        invalidated::measure(fleet, ledger).await?;
    }
    Ok(())
}

/// The server, and whether it is only to be shown that all of it works.
struct Fleet {
    server: Server,
    short: bool,
}

impl Fleet {
    /// Another process on the server.
    async fn process(&self) -> Result<Worker> {
        Worker::start(&[&self.server.port().to_string()]).await
    }

    /// The cache in this process.
    async fn pages(&self, options: GuardedGet) -> Result<Pages> {
        Ok(pages(connect(self.server.port(), Calls::default()).await?, options))
    }
}

async fn connect(port: u16, calls: Calls) -> Result<Store> {
    let config = ValkeyConfig::default().addresses([("127.0.0.1", port)]);
    let store = ValkeyStore::connect(config.op_timeout(Duration::from_secs(10))).await?;
    Ok(Layered::new(store, calls))
}

fn pages(store: Store, options: GuardedGet) -> Pages {
    Cache::new(store, "fleet:", options)
}
