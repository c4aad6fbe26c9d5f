//! What a bad moment of the database costs, on a cold key that everybody wants.
//!
//! `herd`: on the embedded store, and in virtual time, so that it ends at once. Only the last table
//! takes its time, 21 seconds.

mod failure;
mod stall;

use std::time::Duration;

use derp_kv_memory::MemoryStore;
use failure::Failure;
use stall::Stall;

const LONG: Stall = Stall {
    every: Duration::from_millis(50),
    patience: Duration::from_secs(5),
    stall: Duration::from_secs(6),
    lasts: Duration::from_secs(120),
};
const SHORT: Stall = Stall {
    every: Duration::from_millis(10),
    patience: Duration::from_secs(1),
    stall: Duration::from_millis(1_500),
    lasts: Duration::from_secs(20),
};

fn main() -> anyhow::Result<()> {
    println!("The database stalls once, from the first request on. Virtual time.\n");
    println!("{}", stall::HEADING);
    for stall in [LONG, SHORT] {
        for store in [None, Some(MemoryStore::new())] {
            println!("{}", in_virtual_time(stall.run(store))?);
        }
    }

    println!("\nThe database fails each query after a second. Virtual time.\n");
    println!("{}", failure::HEADING);
    for callers in [100, 500] {
        for store in [None, Some(MemoryStore::new())] {
            println!("{}", in_virtual_time(Failure { callers }.run(store))?);
        }
    }

    println!("\nThe database stalls once. Real time.\n");
    println!("{}", stall::HEADING);
    let runtime = tokio::runtime::Runtime::new()?;
    let (without, with) = runtime
        .block_on(async { tokio::join!(SHORT.run(None), SHORT.run(Some(MemoryStore::new()))) });
    println!("{without}\n{with}");
    Ok(())
}

/// Whenever all wait, the clock goes on to what they wait for.
fn in_virtual_time<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    Ok(runtime.enable_time().start_paused(true).build()?.block_on(work))
}
