//! The common operations on one server and on a cluster, beside other clients.

mod support;

use anyhow::Result;
use support::measure::{Plan, compare};
use support::servers::Server;
use support::{Args, Data, Op, Row, Rows, Subjects};

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse()?;
    let mut rows = Rows::new(&args)?;
    let plan = Plan::new(&args);
    let server = Server::start(&[]).await?;
    let subjects = Subjects::standalone(&server).await?;
    for value_bytes in [64, 4096] {
        let data = Data::new(10_000, value_bytes);
        data.fill(&subjects.redis_rs).await?;
        for op in Op::ALL {
            if value_bytes != 64 && !op.has_value() {
                continue;
            }
            for callers in [1, 64, 512] {
                if !args.wants(&format!("/{}/{callers}/{value_bytes}", op.name())) {
                    continue;
                }
                let row = Row {
                    suite: "clients",
                    bench: op.name().to_owned(),
                    callers: Some(callers),
                    value_bytes: op.has_value().then_some(value_bytes),
                    ..Row::default()
                };
                let mut contenders = subjects.contenders(op, data);
                contenders.retain(|(name, _)| args.wants_subject(name));
                for row in compare(&row, &contenders, plan).await? {
                    rows.push(&row)?;
                }
            }
        }
    }
    Ok(())
}
