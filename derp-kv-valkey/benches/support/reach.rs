//! What the table of reach shows: where a bound is set, and no more.

use std::sync::Arc;

use anyhow::{Result, ensure};
use derp_kv_core::KvStore;
use derp_kv_valkey::test_server::{Cluster, Server};
use redis::aio::{ConnectionLike, MultiplexedConnection};

use super::measure::Contender;
use super::{Args, Client as _, Data, Glide, INCR, Op, RedisRs, Row, Store, Subjects, Task};

/// It lives in a process of its own.
pub const GLIDE: &str = "GLIDE";

const KEYS: usize = 10_000;
const SMALL: usize = 64;
const LARGE: usize = 4096;

/// Operation, bytes of a value, and how many callers.
type Case = (Op, usize, &'static [usize]);

const ONE_SERVER: [Case; 7] = [
    (Op::Get, SMALL, &[1, 64, 512]),
    (Op::Get, LARGE, &[64, 512]),
    (Op::SetTtl, SMALL, &[64, 512]),
    (Op::IncrByScript, SMALL, &[64, 512]),
    (Op::RateLimitByScript, SMALL, &[64, 512]),
    (Op::Mget(100), SMALL, &[64]),
    (Op::Mget(100), LARGE, &[64]),
];
const CLUSTER: [Case; 1] = [(Op::Get, SMALL, &[64])];

/// Measures each case that `args` asks for, with all clients that take part in it.
pub async fn each_reach_case(
    args: &Args,
    mut measure: impl AsyncFnMut(Op, Row, Vec<Contender>) -> Result<()>,
) -> Result<()> {
    let server = Server::start().await?;
    let subjects = Subjects::standalone(&server).await?;
    prepare_scripts(&subjects).await?;
    let row = Row { suite: "reach", ..Row::default() };
    each_case_of(&row, &ONE_SERVER, &subjects, Some(&server), args, &mut measure).await?;
    drop((subjects, server));
    let cluster = Cluster::start(3, 0).await?;
    let subjects = Subjects::cluster(&cluster).await?;
    let row = Row { primaries: Some(3), ..row };
    each_case_of(&row, &CLUSTER, &subjects, None, args, &mut measure).await
}

/// All that can do `op`, the store also as a trait object.
pub fn reach_contenders<C: ConnectionLike + Clone + Send + Sync + 'static>(
    subjects: &Subjects<C>,
    op: Op,
    data: &'static Data,
) -> Vec<Contender> {
    let mut contenders = subjects.contenders(op, data);
    let shared: Arc<dyn KvStore> = Arc::new(subjects.store.clone());
    contenders.insert(2, ("derp-kv, dyn", Task::boxed(Store(shared), op, data)));
    contenders
}

/// The store leaves its script on the server; then each counter begins.
async fn prepare_scripts(subjects: &Subjects<MultiplexedConnection>) -> Result<()> {
    subjects.store.incr(b"bench:any counter", 1, None).await?;
    let mut connection = subjects.redis_rs.clone();
    let mut exists = redis::cmd("SCRIPT");
    exists.arg("EXISTS").arg(INCR.get_hash());
    let [same]: [bool; 1] = exists.query_async(&mut connection).await?;
    ensure!(same, "`incr` no longer runs the script that the other clients run here");
    let (data, redis_rs) = (Data::new(1, SMALL), RedisRs(connection));
    for at in 0..data.counters.len() {
        redis_rs.run(Op::IncrByScript, data, at).await?;
        redis_rs.run(Op::RateLimitByScript, data, at).await?;
    }
    Ok(())
}

async fn each_case_of<C: ConnectionLike + Clone + Send + Sync + 'static>(
    row: &Row,
    cases: &[Case],
    subjects: &Subjects<C>,
    server: Option<&Server>,
    args: &Args,
    measure: &mut impl AsyncFnMut(Op, Row, Vec<Contender>) -> Result<()>,
) -> Result<()> {
    for &(op, value_bytes, callers) in cases {
        let data = Data::new(KEYS, value_bytes);
        data.fill(&subjects.redis_rs).await?;
        let place = if server.is_some() { "" } else { ", cluster" };
        let bench = op.name() + place;
        for &callers in callers {
            if !args.wants(&format!("reach/{bench}/{callers}/{value_bytes}")) {
                continue;
            }
            let mut contenders = reach_contenders(subjects, op, data);
            if let Some(server) = server
                && (op, value_bytes, callers) == (Op::Get, SMALL, 64)
                && let Some(glide) = Glide::start(server, data).await?
            {
                contenders.push((GLIDE, Box::new(glide)));
            }
            contenders.retain(|(name, _)| args.wants_subject(name));
            let row = Row {
                bench: bench.clone(),
                callers: Some(callers),
                value_bytes: op.has_value().then_some(value_bytes),
                ..row.clone()
            };
            measure(op, row, contenders).await?;
        }
    }
    Ok(())
}
