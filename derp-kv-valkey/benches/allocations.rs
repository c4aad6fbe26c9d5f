//! Allocations of each operation; a program of its own, because counting them costs time.

mod support;

use std::alloc::System;

use anyhow::Result;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::measure::{Contender, Round, Work};
use support::{Args, GLIDE, Op, Row, Rows, each_case, each_reach_case};

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

async fn count(
    args: &Args,
    rows: &mut Rows,
    op: Op,
    row: Row,
    contenders: Vec<Contender>,
) -> Result<()> {
    let callers = row.callers.unwrap_or(1);
    let turns = turns(op, callers, args.short);
    // Another process's allocations cannot be seen from here.
    for (name, subject) in contenders.into_iter().filter(|(name, _)| *name != GLIDE) {
        let own = allocations(&Nothing, callers, turns).await?;
        let all = allocations(&*subject, callers, turns).await?;
        rows.push(&Row {
            subject: name.to_owned(),
            allocs_per_op: Some((all - own).max(0.0)),
            ..row.clone()
        })?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse()?;
    let mut rows = Rows::new(&args)?;
    let only = args.only.as_deref();
    let of_reach = only.is_some_and(|only| only.starts_with("reach/"));
    if !of_reach {
        let counted =
            async |op, row, contenders| count(&args, &mut rows, op, row, contenders).await;
        each_case(&args, counted).await?;
    }
    if of_reach || only.is_none() {
        let counted =
            async |op, row, contenders| count(&args, &mut rows, op, row, contenders).await;
        each_reach_case(&args, counted).await?;
    }
    Ok(())
}
