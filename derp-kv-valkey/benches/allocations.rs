//! Allocations of each operation; a program of its own, because counting them costs time.

mod support;

use std::alloc::System;

use anyhow::Result;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::measure::{Round, Work};
use support::{Args, Op, Row, Rows, each_case};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What the harness itself allocates is measured with it, and taken off.
#[derive(Clone)]
struct Nothing;

impl Work for Nothing {
    async fn once(&self, _: usize) -> Result<()> {
        Ok(())
    }
}

/// Enough that what one round leaves to the next counts for little.
fn turns(op: Op, callers: usize, short: bool) -> usize {
    let parts = if let Op::Mget(_) = op { 10 } else { 1 };
    if short { 1 } else { (12_800 / callers / parts).clamp(4, 1000) }
}

async fn allocations(work: &dyn Round, callers: usize, turns: usize) -> Result<f64> {
    // The first round fills buffers and caches.
    work.round(callers, turns).await?;
    let region = Region::new(ALLOCATOR);
    work.round(callers, turns).await?;
    let change = region.change();
    Ok((change.allocations + change.reallocations) as f64 / (callers * turns) as f64)
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse()?;
    let mut rows = Rows::new(&args)?;
    each_case(&args, async |op, row, contenders| {
        let callers = row.callers.unwrap_or(1);
        let turns = turns(op, callers, args.short);
        for (name, subject) in contenders {
            let own = allocations(&Nothing, callers, turns).await?;
            let all = allocations(&*subject, callers, turns).await?;
            rows.push(&Row {
                subject: name.to_owned(),
                allocs_per_op: Some((all - own).max(0.0)),
                ..row.clone()
            })?;
        }
        Ok(())
    })
    .await
}
