//! The common operations on one server and on a cluster, beside other clients.

mod support;

use anyhow::Result;
use derp_kv_valkey::test_server::{Cluster, Server};
use redis::aio::ConnectionLike;
use support::measure::{Plan, compare};
use support::{Args, Data, Op, Row, Rows, Subjects};

const KEYS: usize = 10_000;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse()?;
    let mut rows = Rows::new(&args)?;
    let server = Server::start().await?;
    let subjects = Subjects::standalone(&server).await?;
    measure("clients", &subjects, &[64, 4096], &args, &mut rows).await?;
    drop((subjects, server));
    let cluster = Cluster::start(3, 0).await?;
    let subjects = Subjects::cluster(&cluster).await?;
    measure("cluster", &subjects, &[64], &args, &mut rows).await
}

async fn measure<C: ConnectionLike + Clone + Send + Sync + 'static>(
    suite: &'static str,
    subjects: &Subjects<C>,
    sizes: &[usize],
    args: &Args,
    rows: &mut Rows,
) -> Result<()> {
    let callers: &[usize] = if args.short { &[1, 8] } else { &[1, 64, 512] };
    for &value_bytes in sizes {
        let data = Data::new(KEYS, value_bytes);
        data.fill(&subjects.redis_rs).await?;
        for op in Op::ALL {
            if value_bytes != sizes[0] && !op.has_value() {
                continue;
            }
            for &callers in callers {
                if !args.wants(&format!("{suite}/{}/{callers}/{value_bytes}", op.name())) {
                    continue;
                }
                let budgeted = op == Op::Get && callers > 1;
                let plan = if budgeted { Plan::of_budget(args) } else { Plan::new(args) };
                let row = Row {
                    suite,
                    bench: op.name(),
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
