//! Allocations of each operation; a program of its own, because counting them costs time.

mod support;

use std::alloc::System;

use anyhow::Result;
use derp_kv_valkey::test_server::Server;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::measure::{Round, Work};
use support::{Args, Data, Op, Row, Rows, Subjects};

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

const CALLERS: usize = 64;

async fn allocations(work: &dyn Round, turns: usize) -> Result<f64> {
    // The first round fills buffers and caches.
    work.round(CALLERS, turns).await?;
    let region = Region::new(ALLOCATOR);
    work.round(CALLERS, turns).await?;
    let change = region.change();
    Ok((change.allocations + change.reallocations) as f64 / (CALLERS * turns) as f64)
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse()?;
    let mut rows = Rows::new(&args)?;
    let turns = if args.short { 1 } else { 200 };
    let server = Server::start().await?;
    let subjects = Subjects::standalone(&server).await?;
    let data = Data::new(10_000, 64);
    data.fill(&subjects.redis_rs).await?;
    for op in Op::ALL {
        for (name, subject) in subjects.contenders(op, data) {
            let own = allocations(&Nothing, turns).await?;
            let all = allocations(&*subject, turns).await?;
            rows.push(&Row {
                suite: "clients",
                bench: op.name(),
                subject: name.to_owned(),
                callers: Some(CALLERS),
                value_bytes: op.has_value().then_some(64),
                allocs_per_op: Some((all - own).max(0.0)),
                ..Row::default()
            })?;
        }
    }
    Ok(())
}
