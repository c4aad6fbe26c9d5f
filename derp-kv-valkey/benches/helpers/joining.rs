use std::sync::Arc;

use anyhow::{Result, ensure};
use derp_kv_core::{GuardedGet, KvStore, KvStoreExt as _};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Notify;

use crate::TTL;
use crate::support::measure::cpu_time;
use crate::support::{Row, Rows};

/// What it costs to join a flight that is under way, and to land with it.
pub(crate) async fn measure(
    subject: &str,
    kv: &(impl KvStore + Clone),
    followers: usize,
    commands_of: impl AsyncFn(BoxFuture<'_, Result<()>>) -> Result<usize>,
    rows: &mut Rows,
) -> Result<()> {
    let (computing, landing) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let lead = tokio::spawn({
        let (kv, computing, landing) = (kv.clone(), computing.clone(), landing.clone());
        async move {
            kv.guarded_get("flight", &GuardedGet::new(TTL), || async {
                computing.notify_one();
                landing.notified().await;
                anyhow::Ok("value")
            })
            .await
        }
    });
    computing.notified().await;
    let cpu = cpu_time();
    let land = async {
        let follow = |_| async {
            let another = || async { anyhow::Ok("another") };
            let value = kv.guarded_get("flight", &GuardedGet::new(TTL), another).await?;
            ensure!(value == "value", "a follower computed");
            Ok(())
        };
        let mut calls = Box::pin(join_all((0..followers).map(follow)));
        // Everybody is on board once all have been polled.
        ensure!((&mut calls).now_or_never().is_none(), "nobody waits");
        landing.notify_one();
        calls.await.into_iter().collect::<Result<Vec<()>>>()?;
        ensure!(lead.await?? == "value");
        Ok(())
    };
    let commands = commands_of(land.boxed()).await?;
    let cpu = cpu_time() - cpu;
    rows.push(&Row {
        suite: "helpers",
        bench: "guarded_get that joins a flight".to_owned(),
        subject: subject.to_owned(),
        callers: Some(followers),
        cpu_ns_per_op: Some(cpu.as_nanos() as f64 / followers as f64),
        commands_per_op: Some(commands as f64 / followers as f64),
        ..Row::default()
    })
}
