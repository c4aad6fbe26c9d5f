//! The load in one process: all ways at the same time, each on a database of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use derp_kv_core::KvStore;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::outage::database::Database;
use crate::outage::plan::Plan;
use crate::outage::way::Way;

/// What one way came to, in one process or in all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Course {
    pub(crate) callers: Vec<Caller>,
    /// Connections in use, one number a [`Plan::sample`].
    pub(crate) in_use: Vec<usize>,
    pub(crate) queries: u64,
}

/// One caller; the times are in seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Caller {
    /// Since the load began.
    pub(crate) came: f64,
    pub(crate) waited: f64,
    pub(crate) got: Got,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Got {
    Fresh,
    Stale,
    Error,
    /// It gave up.
    Nothing,
}

/// What each way came to, in their order.
pub(crate) async fn run(plan: Plan, kv: Arc<dyn KvStore>) -> Result<Vec<Course>> {
    let began = Instant::now();
    let ways = Way::all(&plan, &kv, || Database::new(&plan, began));
    let courses = ways.map(|way| tokio::spawn(course(plan, Arc::new(way), began)));
    join_all(courses).await.into_iter().map(|course| course.context("a task panicked")).collect()
}

async fn course(plan: Plan, way: Arc<Way>, began: Instant) -> Course {
    let looking = tokio::spawn(look(plan, way.clone(), began));
    let mut callers = JoinSet::new();
    for moment in moments(plan.every(), plan.total()) {
        sleep_until(began + moment).await;
        callers.spawn(call(way.clone(), plan.patience(), began));
    }
    Course {
        callers: callers.join_all().await,
        in_use: looking.await.unwrap_or_default(),
        queries: way.database.queries(),
    }
}

async fn call(way: Arc<Way>, patience: Duration, began: Instant) -> Caller {
    let came = Instant::now();
    let got = match timeout(patience, way.get()).await {
        Ok(Ok(true)) => Got::Fresh,
        Ok(Ok(false)) => Got::Stale,
        Ok(Err(_)) => Got::Error,
        Err(_) => Got::Nothing,
    };
    let seconds = |since: Instant, until: Instant| (until - since).as_secs_f64();
    Caller { came: seconds(began, came), waited: seconds(came, Instant::now()), got }
}

async fn look(plan: Plan, way: Arc<Way>, began: Instant) -> Vec<usize> {
    let mut in_use = Vec::new();
    for moment in moments(plan.sample(), plan.total()) {
        sleep_until(began + moment).await;
        in_use.push(way.database.in_use());
    }
    in_use
}

fn moments(every: Duration, total: Duration) -> impl Iterator<Item = Duration> {
    (0..).map(move |nth| every * nth).take_while(move |moment| *moment < total)
}

impl Course {
    /// Adds what the same way came to in another process.
    pub(crate) fn add(&mut self, other: Self) {
        self.callers.extend(other.callers);
        self.in_use.resize(self.in_use.len().max(other.in_use.len()), 0);
        for (sum, more) in self.in_use.iter_mut().zip(other.in_use) {
            *sum += more;
        }
        self.queries += other.queries;
    }
}
