//! One connection and the statements in order on it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, Result};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row, Statement};

use super::PostgresConfig;
use super::changes::Changes;
use super::failure::{failed, too_late, unavailable};
use super::sql;

/// A parameter of a statement. It is owned, because the statement outlives a caller that goes away.
pub(super) type Param = Box<dyn ToSql + Send + Sync>;

/// How much longer than the server a caller waits for the answer: the server's own word that it gave
/// up a statement is certain, and a caller's impatience is not.
const GRACE: Duration = Duration::from_secs(1);

/// A place for one connection, which is opened again when it was lost.
///
/// The statements of a lane are sent in the order of the calls, without waiting for each other's
/// answers, and the server runs them in this order. So a call that was dropped after its statement
/// had left is over before any later call of the lane.
pub(super) struct Lane {
    config: PostgresConfig,
    runtime: Handle,
    changes: Arc<Changes>,
    wire: Mutex<Option<Arc<Wire>>>,
    opening: tokio::sync::Mutex<()>,
}

/// An open connection, until it is closed.
pub(super) struct Wire {
    client: Client,
    prepared: HashMap<&'static str, Statement>,
    session: Session,
    driver: AbortHandle,
    /// Nothing is sent over it any more, although it is not closed yet.
    given_up: AtomicBool,
}

/// Which session of the server it is: its process, and when that began.
struct Session(i32, String);

impl Lane {
    pub(super) fn new(config: PostgresConfig, runtime: Handle, changes: Arc<Changes>) -> Self {
        let (wire, opening) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { config, runtime, changes, wire, opening }
    }

    /// Runs a statement of [`sql::PREPARED`], which changes keys of `buckets`, or only reads.
    pub(super) async fn call(
        self: &Arc<Self>,
        sql: &'static str,
        params: Vec<Param>,
        buckets: Vec<u64>,
    ) -> Result<Vec<Row>> {
        let writes = !buckets.is_empty();
        let wire = match self.open_wire() {
            Some(wire) => wire,
            None => self.open().await?,
        };
        let patience = self.config.op_timeout + GRACE;
        let (used, changes) = (wire.clone(), self.changes.clone());
        let mut answer = Box::pin(async move {
            let answer = wire.run(sql, params).await;
            // An answer that was lost leaves open what has changed.
            if !matches!(answer, Ok((_, 0))) {
                changes.tell(buckets);
            }
            answer
        });
        // The first poll hands the statement to the connection, before anything is awaited: a call
        // is dropped either before it and does nothing, or its place in the order is fixed.
        let answered = match poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
            Poll::Ready(answered) => answered,
            // The rest is read in the background: an answer that nobody reads would hold up the
            // answers behind it, where its caller went away or is not polled.
            Poll::Pending => {
                let reading = self.runtime.spawn(async move {
                    // Where the server is silent, whoever calls next gets a new connection.
                    timeout(patience, answer).await.inspect_err(|_| used.give_up())
                });
                let Ok(answered) = reading.await else {
                    return Err(unavailable("the store's runtime is gone", writes));
                };
                answered.map_err(|_| too_late(writes))?
            }
        };
        answered.map(|(rows, _)| rows).map_err(|error| failed(error, writes))
    }

    fn open_wire(&self) -> Option<Arc<Wire>> {
        let wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        wire.clone().filter(|wire| !wire.is_over())
    }

    /// Opens the connection, if it is not open. It goes on where the caller goes away: callers with
    /// less patience than it takes to connect would else never come to one.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Arc<Wire>> {
        let (lane, limit) = (self.clone(), self.config.op_timeout);
        let opening = async move {
            let _one_at_a_time = lane.opening.lock().await;
            if let Some(wire) = lane.open_wire() {
                return Ok(wire);
            }
            let lost = lane.wire.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let lost = lost.as_deref().map(|wire| &wire.session);
            let wire = Arc::new(Wire::open(&lane.config, lost).await?);
            *lane.wire.lock().unwrap_or_else(PoisonError::into_inner) = Some(wire.clone());
            Ok(wire)
        };
        // The time counts for the wait for one's turn, too.
        let opening = self.runtime.spawn(async move {
            timeout(limit, opening).await.unwrap_or_else(|_| Err(too_late(false)))
        });
        opening.await.unwrap_or_else(|_| Err(unavailable("the store's runtime is gone", false)))
    }
}

impl Wire {
    async fn open(config: &PostgresConfig, lost: Option<&Session>) -> Result<Self> {
        let refused = |error| failed(error, false);
        let (client, connection) = config.server.connect(NoTls).await.map_err(refused)?;
        let driver = tokio::spawn(connection).abort_handle();
        let limit = config.op_timeout.as_millis();
        let session = format!("{}; SET statement_timeout = {limit}", sql::SESSION);
        client.batch_execute(&session).await.map_err(refused)?;
        if let Some(Session(pid, began)) = lost {
            // What the lost connection had sent may still run, and would land behind what is sent
            // from now on.
            let limit = i64::try_from(limit / 2).unwrap_or(i64::MAX);
            let ended = client.query(sql::END, &[pid, began, &limit]).await.map_err(refused)?;
            // No row: it is gone, or the server is another one by now.
            if !ended.iter().all(|row| row.get(0)) {
                let still = "the session of the connection that was lost has not ended yet";
                return Err(Error::new(ErrorKind::Unavailable, still));
            }
        }
        let exists = client.query_one(sql::EXISTS, &[]).await.map_err(refused)?;
        if !exists.get::<_, bool>(0) {
            client.batch_execute(sql::CREATE).await.map_err(refused)?;
        }
        let prepare = sql::PREPARED.map(|text| client.prepare(text));
        let prepared = try_join_all(prepare).await.map_err(refused)?;
        let prepared = sql::PREPARED.into_iter().zip(prepared).collect();
        let me = client.query_one(sql::ME, &[]).await.map_err(refused)?;
        let session = Session(me.get(0), me.get(1));
        Ok(Self { client, prepared, session, driver, given_up: AtomicBool::new(false) })
    }

    fn is_over(&self) -> bool {
        self.client.is_closed() || self.given_up.load(Ordering::SeqCst)
    }

    fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
        self.driver.abort();
    }

    /// The rows of the answer, and how many rows were changed or read.
    async fn run(
        &self,
        sql: &'static str,
        params: Vec<Param>,
    ) -> Result<(Vec<Row>, u64), tokio_postgres::Error> {
        let mut answer = pin!(self.client.query_raw(&self.prepared[sql], params).await?);
        let rows = answer.as_mut().try_collect().await?;
        Ok((rows, answer.rows_affected().unwrap_or(0)))
    }
}
