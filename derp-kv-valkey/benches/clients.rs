//! The common operations on one server and on a cluster, beside other clients.

mod support;

use anyhow::Result;
use support::measure::{Plan, compare};
use support::{Args, Op, Rows, each_case};

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse()?;
    let mut rows = Rows::new(&args)?;
    each_case(&args, async |op, row, contenders| {
        let budgeted = op == Op::Get && row.callers > Some(1);
        let plan = if budgeted { Plan::of_budget(&args) } else { Plan::new(&args) };
        for row in compare(&row, &contenders, plan).await? {
            rows.push(&row)?;
        }
        Ok(())
    })
    .await
}
