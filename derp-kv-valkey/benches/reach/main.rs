//! How far this project reaches: the operations that have a bound, beside other clients.
//!
//! All have the same callers on the same runtime, and take turns round by round.

#[path = "../support/mod.rs"]
mod support;

mod instructions;

use anyhow::Result;
use support::measure::{Plan, compare};
use support::{Args, Rows, each_reach_case};

// As many workers as their users have on two cores; what else a client starts is its own affair.
#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, words)) = words.split_first()
        && first == instructions::CALLS
    {
        return instructions::run(words).await;
    }
    let args = Args::parse()?;
    let mut rows = Rows::new(&args)?;
    each_reach_case(&args, async |_, row, contenders| {
        for row in compare(&row, &contenders, Plan::of_reach(&args)).await? {
            rows.push(&row)?;
        }
        Ok(())
    })
    .await?;
    // What valgrind cannot run here is left out of the table, which says so.
    if let Err(error) = instructions::measure(&args, &mut rows).await {
        eprintln!(
            "instructions are not counted: {}",
            error.to_string().lines().next().unwrap_or("")
        );
    }
    Ok(())
}
