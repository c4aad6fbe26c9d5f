//! A database with few connections, that is down for a while.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::outage::plan::Plan;

pub(crate) struct Database {
    connections: Semaphore,
    size: usize,
    down: Range<Instant>,
    query: Duration,
    timeout: Duration,
    queries: AtomicU64,
}

impl Database {
    /// A database for a load that begins at `began`.
    pub(crate) fn new(plan: &Plan, began: Instant) -> Self {
        let size = plan.connections() as usize;
        let down = began + plan.before();
        Self {
            connections: Semaphore::new(size),
            size,
            down: down..down + plan.outage,
            query: plan.query(),
            timeout: plan.query_timeout(),
            queries: AtomicU64::new(0),
        }
    }

    /// Waits for a connection, and holds it until the answer is there. A query that begins while the
    /// database is down holds it until its time-out, as it does where packets go nowhere.
    pub(crate) async fn query(&self) -> Result<String> {
        let _connection = self.connections.acquire().await?;
        self.queries.fetch_add(1, Ordering::Relaxed);
        if self.down.contains(&Instant::now()) {
            sleep(self.timeout).await;
            bail!("the database does not answer");
        }
        sleep(self.query).await;
        Ok("page".to_owned())
    }

    /// How many connections are held now.
    pub(crate) fn in_use(&self) -> usize {
        self.size - self.connections.available_permits()
    }

    /// How many queries have begun.
    pub(crate) fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }
}
