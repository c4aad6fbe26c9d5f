//! Instructions of one `guarded_get`: a hit, and an uncontended miss.
//!
//! `cargo bench -p derp-kv-core --bench instructions` starts itself under callgrind, which must be
//! installed, with two numbers of calls; what the larger one costs beyond the smaller is the calls'.

mod bare_store;

use std::env;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bare_store::BareStore;
use derp_kv_core::{GuardedGet, KvStore, KvStoreExt};
use derp_kv_memory::MemoryStore;

const PAGE: GuardedGet = GuardedGet::new(Duration::from_secs(3600));
const CALLS: [u32; 2] = [4_000, 12_000];

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [store, call, calls] = &arguments[..] {
        return run(store, call, calls.parse()?);
    }
    println!("| store | `guarded_get` | instructions |\n|---|---|---|");
    for store in ["MemoryStore", "bare"] {
        for call in ["hit", "miss"] {
            let [few, many] = CALLS.map(|calls| instructions(store, call, calls));
            let each = (many? - few?) / u64::from(CALLS[1] - CALLS[0]);
            println!("| {store} | {call} | {each} |");
        }
    }
    Ok(())
}

/// What callgrind counts in a process that makes so many calls.
fn instructions(store: &str, call: &str, calls: u32) -> Result<u64> {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args([store, call, &calls.to_string()])
        .output()
        .context("valgrind is not installed")?;
    let told = String::from_utf8_lossy(&run.stderr);
    ensure!(run.status.success(), "{told}");
    let collected = told.lines().find_map(|line| line.split_once("Collected :"));
    Ok(collected.context("no count")?.1.trim().parse()?)
}

fn run(store: &str, call: &str, calls: u32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        match store {
            "bare" => calls_of(&BareStore::default(), call, calls).await,
            _ => calls_of(&MemoryStore::new(), call, calls).await,
        }
    })
}

async fn calls_of(kv: &(impl KvStore + Clone), call: &str, calls: u32) -> Result<()> {
    let miss = call == "miss";
    for number in 0..calls {
        let key = if miss { number } else { 0 }.to_be_bytes();
        let page = kv.guarded_get(key, &PAGE, || async { anyhow::Ok("page") }).await?;
        ensure!(page == "page");
        if miss {
            // Lets what renews the lease, and has no more to do, come to its end.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
