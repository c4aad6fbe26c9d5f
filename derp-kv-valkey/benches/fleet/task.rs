//! What one process tells another one to do.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use derp_kv_core::GuardedGet;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::calls::Calls;
use crate::load::{Load, NEW, OLD, Told};
use crate::support::worker::{Master, Worker};
use crate::{LONG, Pages, STALE, connect, pages};

/// Options of the cache, which are the same in all processes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) ttl: Duration,
    pub(crate) backoff: Duration,
    pub(crate) lock_ttl: Duration,
}

impl Times {
    pub(crate) fn options(&self) -> GuardedGet {
        let options = GuardedGet::new(self.ttl).stale(STALE);
        options.backoff(self.backoff).lock_ttl(self.lock_ttl)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Lets callers ask, and tells what came of it.
    Load(Load),
    /// Begins a refresh that never ends, and says so.
    Hang { key: String },
    /// Begins a refresh whose origin still has the old value, says so, and tells how many values were not
    /// kept when it has ended.
    Refresh { key: String, takes: Duration },
}

/// What is said when a refresh has begun.
pub(crate) const COMPUTING: &str = "computing";

/// Tells a process what to do.
pub(crate) async fn tell(worker: &mut Worker, times: Times, task: &Task) -> Result<()> {
    worker.tell(&serde_json::to_string(&(times, task))?).await
}

/// Waits until a process has begun a refresh.
pub(crate) async fn hear_computing(worker: &mut Worker) -> Result<()> {
    ensure!(worker.hear().await? == COMPUTING);
    Ok(())
}

/// Lets two processes run the same load, and tells what came of both.
pub(crate) async fn both(workers: &mut [Worker; 2], times: Times, load: &Load) -> Result<Told> {
    for worker in &mut *workers {
        tell(worker, times, &Task::Load(load.clone())).await?;
    }
    told(workers).await
}

/// What two processes tell of their load.
pub(crate) async fn told(workers: &mut [Worker; 2]) -> Result<Told> {
    let mut all = Told::default();
    for worker in workers {
        all.add(serde_json::from_str(&worker.hear().await?)?);
    }
    Ok(all)
}

/// The whole life of such a process.
pub(crate) async fn work(port: u16) -> Result<()> {
    let calls = Calls::default();
    let store = connect(port, calls.clone()).await?;
    let mut master = Master::greet().await?;
    while let Some(line) = master.hear().await? {
        let (times, task): (Times, Task) = serde_json::from_str(&line)?;
        let pages = pages(store.clone(), times.options());
        match task {
            Task::Load(load) => {
                let told = load.run(&pages, &calls).await?;
                master.tell(&serde_json::to_string(&told)?).await?;
            }
            Task::Hang { key } => {
                refresh(&pages, &key, &mut master, pending()).await?;
                pending::<()>().await;
            }
            Task::Refresh { key, takes } => {
                calls.take_not_kept();
                refresh(&pages, &key, &mut master, sleep(takes)).await?;
                ensure!(pages.drain(LONG).await, "the refresh hangs");
                master.tell(&calls.take_not_kept().to_string()).await?;
            }
        }
    }
    Ok(())
}

/// Begins a refresh in the background, and says when it computes.
async fn refresh(
    pages: &Pages,
    key: &str,
    master: &mut Master,
    takes: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let computing = Arc::new(Notify::new());
    let begun = computing.clone();
    let compute = move |stale: Option<String>| async move {
        begun.notify_one();
        takes.await;
        anyhow::Ok(stale.unwrap_or_else(|| NEW.to_owned()))
    };
    ensure!(pages.get(key, compute).await? == OLD);
    computing.notified().await;
    master.tell(COMPUTING).await
}
