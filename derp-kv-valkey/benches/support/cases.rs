//! What the tables of clients show: every operation under every load, on one server and on a
//! cluster.

use anyhow::Result;
use derp_kv_valkey::test_server::{Cluster, Server};
use redis::aio::ConnectionLike;

use super::measure::Contender;
use super::{Args, Data, Op, Row, Subjects};

const KEYS: usize = 10_000;
const VALUE_BYTES: [usize; 2] = [64, 4096];

/// Measures each case that `args` asks for, with all clients that take part in it.
pub async fn each_case(
    args: &Args,
    mut measure: impl AsyncFnMut(Op, Row, Vec<Contender>) -> Result<()>,
) -> Result<()> {
    let server = Server::start().await?;
    let subjects = Subjects::standalone(&server).await?;
    each_case_of("clients", &subjects, args, &mut measure).await?;
    drop((subjects, server));
    let cluster = Cluster::start(3, 0).await?;
    let subjects = Subjects::cluster(&cluster).await?;
    each_case_of("cluster", &subjects, args, &mut measure).await
}

async fn each_case_of<C: ConnectionLike + Clone + Send + Sync + 'static>(
    suite: &'static str,
    subjects: &Subjects<C>,
    args: &Args,
    measure: &mut impl AsyncFnMut(Op, Row, Vec<Contender>) -> Result<()>,
) -> Result<()> {
    let callers: &[usize] = if args.short { &[1, 8] } else { &[1, 64, 512] };
    for value_bytes in VALUE_BYTES {
        let data = Data::new(KEYS, value_bytes);
        data.fill(&subjects.redis_rs).await?;
        for op in Op::ALL {
            if value_bytes != VALUE_BYTES[0] && !op.has_value() {
                continue;
            }
            for &callers in callers {
                if !args.wants(&format!("{suite}/{}/{callers}/{value_bytes}", op.name())) {
                    continue;
                }
                let row = Row {
                    suite,
                    bench: op.name(),
                    callers: Some(callers),
                    value_bytes: op.has_value().then_some(value_bytes),
                    ..Row::default()
                };
                let mut contenders = subjects.contenders(op, data);
                contenders.retain(|(name, _)| args.wants_subject(name));
                measure(op, row, contenders).await?;
            }
        }
    }
    Ok(())
}
