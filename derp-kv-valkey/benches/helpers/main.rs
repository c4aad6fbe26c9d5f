//! What each helper costs in commands, processor time and latency, and how a herd is tamed.

#[path = "../support/mod.rs"]
mod support;

mod counter;
mod helper;
mod herd;
mod joining;
mod one_by_one;
mod wake;
mod without_flights;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use derp_kv_conformance::CountingStore;
use derp_kv_memory::MemoryStore;
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use futures_util::future::BoxFuture;

use counter::Counter;
use support::worker::{Master, WORKER};
use support::{Args, Rows};

const TTL: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == WORKER) {
        return work(&words[1..]).await;
    }
    let args = Args::parse()?;
    let mut rows = Rows::new(&args)?;
    let server = Server::start().await?;
    let counter = Counter::new(&server).await?;
    let (turns, followers) = if args.short { (10, 10) } else { (2000, 1000) };
    let (valkey, memory) = (connect(server.port()).await?, MemoryStore::new());

    let on_server = async |work: BoxFuture<'_, Result<()>>| Ok(counter.during(work).await?.1);
    one_by_one::measure("Valkey", &valkey, &valkey, turns, on_server, &mut rows).await?;
    joining::measure("Valkey", &valkey, followers, on_server, &mut rows).await?;

    // Each call of a primitive would be a command.
    let counting = CountingStore::new(memory.clone());
    let in_memory = async |work: BoxFuture<'_, Result<()>>| {
        let before = counting.counts();
        work.await?;
        Ok(usize::try_from((counting.counts() - before).total())?)
    };
    one_by_one::measure("memory", &memory, &counting, 5 * turns, in_memory, &mut rows).await?;
    joining::measure("memory", &counting, followers, in_memory, &mut rows).await?;

    herd::measure(&server, &counter, &args, &mut rows).await?;
    for run in 0..if args.short { 1 } else { 3 } {
        wake::measure(run, &server, &args, &mut rows).await?;
    }
    Ok(())
}

/// Another process of a benchmark: what it does, the server's port, and what it needs for that.
async fn work(words: &[String]) -> Result<()> {
    let [role, port, args @ ..] = words else { bail!("a worker needs a role and a port") };
    let kv = connect(port.parse().context("the port")?).await?;
    let master = Master::greet().await?;
    match role.as_str() {
        "herd" => herd::work(&kv, args, master).await,
        "holder" => wake::hold(&kv, master).await,
        role => bail!("no role {role}"),
    }
}

async fn connect(port: u16) -> Result<ValkeyStore> {
    let config = ValkeyConfig::default().addresses([("127.0.0.1", port)]);
    let config = config.op_timeout(Duration::from_secs(10));
    Ok(ValkeyStore::connect(config).await?)
}
