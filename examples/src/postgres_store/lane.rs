//! One connection and the statements in order on it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use derp_kv_core::{Error, ErrorKind, Result};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error as PostgresError, NoTls, Row, Statement};

use super::PostgresConfig;
use super::changes::Changes;
use super::failure::{failed, too_late, unavailable};
use super::sql;

/// A parameter of a statement. It is owned, because the statement outlives a caller that goes away.
pub(super) type Param = Box<dyn ToSql + Send + Sync>;

/// How much longer than `statement_timeout` a caller waits for the answer. A statement that the
/// server gave up is undone for certain; a caller that gives up first does not know what becomes of
/// its statement. So the server is given the time to answer first.
const GRACE: Duration = Duration::from_secs(1);

/// A place for one connection, which is opened again when it was lost.
///
/// The statements of a lane are sent in the order of the calls, without waiting for each other's
/// answers, and the server runs them in this order. So a call that was dropped after its statement
/// had left is over before any later call of the lane.
///
/// `statement_timeout` counts from when the server comes to a statement, and a caller's time counts
/// from its call. So a call that stands behind a slow one may end without an answer while the
/// server is as it should be. Its statement stays in the order and its answer is read in the
/// background. The connection is given up only where the server has said nothing at all for longer
/// than a statement may take.
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
    driver: Driver,
    talk: Mutex<Talk>,
    /// Nothing is sent over it any more, although it is not closed yet.
    given_up: AtomicBool,
}

/// How many answers the server owes, and when it last sent a part of one. While it owes none this is
/// the time at which the next statement is sent.
struct Talk {
    unanswered: usize,
    heard: Instant,
}

/// The task that moves a connection's bytes. It ends with this handle: left alone it would wait for
/// ever for an answer that a silent server owes it.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The rows of an answer, and how many rows were changed or read.
type Answer = (Vec<Row>, u64);

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
                let (tell, told) = oneshot::channel();
                self.runtime.spawn(async move {
                    let mut reading = pin!(used.unless_silent(answer, patience, writes));
                    // The caller may be gone, and then nobody takes what it is told.
                    if let Ok(answered) = timeout(patience, &mut reading).await {
                        let _ = tell.send(answered);
                    } else {
                        let _ = tell.send(Err(too_late(writes)));
                        let _ = reading.await;
                    }
                });
                let gone = |_| unavailable("the store's runtime is gone", writes);
                return told.await.map_err(gone)?.map(|(rows, _)| rows);
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
        let driver = Driver(tokio::spawn(connection).abort_handle());
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
        let talk = Mutex::new(Talk { unanswered: 0, heard: Instant::now() });
        Ok(Self { client, prepared, session, driver, talk, given_up: AtomicBool::new(false) })
    }

    fn is_over(&self) -> bool {
        self.client.is_closed() || self.given_up.load(Ordering::SeqCst)
    }

    fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
        self.driver.0.abort();
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of the answer, and how many rows were changed or read.
    async fn run(&self, sql: &'static str, params: Vec<Param>) -> Result<Answer, PostgresError> {
        {
            let mut talk = self.talk();
            if talk.unanswered == 0 {
                talk.heard = Instant::now();
            }
            talk.unanswered += 1;
        }
        let answer = self.ask(sql, params).await;
        let mut talk = self.talk();
        talk.unanswered -= 1;
        talk.heard = Instant::now();
        answer
    }

    async fn ask(&self, sql: &'static str, params: Vec<Param>) -> Result<Answer, PostgresError> {
        let mut answer = pin!(self.client.query_raw(&self.prepared[sql], params).await?);
        let mut rows = Vec::new();
        while let Some(row) = answer.try_next().await? {
            self.talk().heard = Instant::now();
            rows.push(row);
        }
        Ok((rows, answer.rows_affected().unwrap_or(0)))
    }

    /// Reads an answer that the server owes. Where the server is silent for longer than `patience`
    /// the connection is given up, and whoever calls next gets a new one.
    async fn unless_silent(
        &self,
        mut answer: Pin<Box<impl Future<Output = Result<Answer, PostgresError>>>>,
        patience: Duration,
        writes: bool,
    ) -> Result<Answer> {
        let silence = async {
            loop {
                let left = patience.saturating_sub(self.talk().heard.elapsed());
                if left.is_zero() {
                    return;
                }
                sleep(left).await;
            }
        };
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            () = silence => {
                self.give_up();
                // It fails now, and tells the waiters of what may have changed.
                answer.await
            }
        };
        let given_up = self.given_up.load(Ordering::SeqCst);
        answered.map_err(|error| if given_up { too_late(writes) } else { failed(error, writes) })
    }
}
