//! What keeps a link connected: it connects, watches the connection, and connects again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use derp_kv_core::ErrorKind;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};

use crate::config::{Mode, ValkeyConfig};
use crate::io::Io;
use crate::io::backoff::{Backoff, jittered};
use crate::node::connection::{Connection, Sent};
use crate::node::failure::Failure;
use crate::node::health::{Ear, Trust, probe};
use crate::node::hello;
use crate::node::identity::Node;
use crate::node::news::{Condition, Lane};

/// How long a connection is kept at least, whoever asks for a fresh one: a replica goes on refusing.
const RENEWAL: Duration = Duration::from_millis(500);
/// After so long without an answer, an attempt to connect gets another one beside it.
const BESIDE: Duration = Duration::from_millis(500);
/// So many attempts are under way at once, at most.
const MOST_ATTEMPTS: usize = 3;
/// The longest pause after a connection that did not live for long.
const FLAP: Duration = Duration::from_millis(160);
/// The longest pause between two attempts to connect.
const PROBE: Duration = Duration::from_millis(960);
/// How often a server is asked whether it is still a primary, where no cluster tells.
const ROLE: Duration = Duration::from_secs(5);

/// What a link shares with its supervisor.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node: Node,
    pub(super) config: Arc<ValkeyConfig>,
    pub(super) io: Io,
    pub(super) lane: Lane,
    pub(super) state: watch::Sender<State>,
    /// Asks for a fresh connection beside a healthy one.
    pub(super) renew: Notify,
    /// How many connections have taken the place of an earlier one.
    pub(super) reconnects: AtomicU64,
}

#[derive(Debug)]
pub(super) enum State {
    Live(Arc<Connection>),
    Down(Down),
}

/// There is no connection to send requests on.
#[derive(Debug)]
pub(super) struct Down {
    pub(super) since: Instant,
    /// Why the last attempt to connect failed, where one has.
    pub(super) failure: Option<Failure>,
    /// It owes an answer and is silent: nothing more is sent until it speaks or is replaced.
    pub(super) silent: Option<Arc<Connection>>,
}

impl State {
    pub(super) fn down() -> Self {
        Self::Down(Down { since: Instant::now(), failure: None, silent: None })
    }
}

/// Runs for as long as the link is there. `first` is a connection that is there already.
pub(super) async fn supervise(shared: Arc<Shared>, first: Option<Arc<Connection>>) {
    tokio::join!(keep_connected(&shared, first), shared.tell_of_failing_fast());
}

async fn keep_connected(shared: &Shared, first: Option<Arc<Connection>>) {
    let mut next = first;
    let mut is_first = true;
    let mut trust = Trust::in_answers_within(shared.config.op_timeout);
    let mut flaps = Backoff::up_to(FLAP);
    let mut is_successor = false;
    loop {
        let connection = match next.take() {
            Some(connection) => connection,
            None => shared.connect().await,
        };
        if !std::mem::take(&mut is_first) {
            shared.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        shared.set_live(&connection);
        let begun = Instant::now();
        let ended = shared.watch(&connection, &mut trust).await;
        if begun.elapsed() > PROBE {
            flaps = Backoff::up_to(FLAP);
        }
        let was_successor = std::mem::take(&mut is_successor);
        match ended {
            Ended::Closed => {
                connection.kill();
                shared.set_down(None);
                // Where a server closes what it has just accepted, it is not dialled in a tight loop.
                if begun.elapsed() < PROBE {
                    shared.io.sleep(flaps.pause()).await;
                }
            }
            Ended::Refused(failure) => {
                connection.give_up();
                shared.set_down(Some(failure));
            }
            Ended::Replaced(successor) => {
                connection.give_up();
                // Replaced again and again, it is the server that is slow.
                if was_successor && begun.elapsed() < trust.patience() * 4 {
                    trust.grow();
                }
                (next, is_successor) = (Some(successor), true);
            }
        }
    }
}

/// Why a connection is used no longer.
enum Ended {
    Closed,
    /// Who answers at the address now is not to be used.
    Refused(Failure),
    /// What is under way on it keeps it until then.
    Replaced(Arc<Connection>),
}

impl Shared {
    fn set_live(&self, connection: &Arc<Connection>) {
        self.state.send_replace(State::Live(Arc::clone(connection)));
        self.lane.is(Condition::Live);
    }

    /// Notes that the connection owes an answer and does not speak.
    fn set_silent(&self, connection: &Arc<Connection>) {
        let silent = Some(Arc::clone(connection));
        self.state.send_replace(State::Down(Down { since: Instant::now(), failure: None, silent }));
        self.lane.is(Condition::Down);
    }

    /// Notes that there is no connection; it may have been silent for a while already.
    fn set_down(&self, failure: Option<Failure>) {
        self.state.send_modify(|state| {
            let since = match state {
                State::Down(down) => down.since,
                State::Live(_) => Instant::now(),
            };
            *state = State::Down(Down { since, failure, silent: None });
        });
        self.lane.is(Condition::Down);
    }

    /// Tells when there has been no connection for so long that calls fail at once, also where none
    /// is made.
    async fn tell_of_failing_fast(&self) {
        let mut changes = self.state.subscribe();
        loop {
            let since = match &*changes.borrow_and_update() {
                State::Down(down) => Some(down.since),
                State::Live(_) => None,
            };
            if let Some(since) = since {
                tokio::select! {
                    biased;
                    _ = changes.changed() => continue,
                    () = self.io.sleep_until(since + self.config.op_timeout) => {}
                }
                self.lane.is(Condition::FailingFast);
            }
            // The sender lives in `self`: this waits, it cannot fail.
            let _ = changes.changed().await;
        }
    }

    /// Notes why an attempt to connect has failed.
    fn failed(&self, failure: Failure) {
        self.state.send_modify(|state| {
            if let State::Down(down) = state {
                down.failure = Some(failure);
            }
        });
    }

    /// Connects. An attempt that gets no answer is not waited for alone: packets may come through
    /// again a moment after it was begun.
    async fn open(&self) -> Result<Arc<Connection>, Failure> {
        let mut attempts = FuturesUnordered::new();
        attempts.push(self.attempt());
        let mut more = MOST_ATTEMPTS - 1;
        loop {
            tokio::select! {
                Some(opened) = attempts.next() => {
                    if opened.is_ok() || attempts.is_empty() {
                        return opened;
                    }
                }
                () = self.io.sleep(BESIDE), if more > 0 => {
                    more -= 1;
                    attempts.push(self.attempt());
                }
            }
        }
    }

    async fn attempt(&self) -> Result<Arc<Connection>, Failure> {
        Connection::open(&self.node, &self.config, &self.io).await
    }

    /// Connects, however often that takes.
    async fn connect(&self) -> Arc<Connection> {
        let mut backoff = Backoff::up_to(PROBE);
        loop {
            let next = Instant::now() + backoff.pause();
            match self.open().await {
                Ok(connection) => return connection,
                Err(failure) => {
                    self.failed(failure);
                    self.io.sleep_until(next).await;
                }
            }
        }
    }

    /// Returns when `connection` has served its time.
    async fn watch(&self, connection: &Arc<Connection>, trust: &mut Trust) -> Ended {
        let mut ear = Ear::to(connection);
        let (mut renewed, mut role) = (Instant::now(), Instant::now());
        loop {
            let patience = trust.patience();
            let renewal = async {
                self.io.sleep_until(renewed + RENEWAL).await;
                self.renew.notified().await;
            };
            tokio::select! {
                () = connection.closed() => return Ended::Closed,
                () = renewal => {
                    renewed = Instant::now();
                    let opened = tokio::select! {
                        () = connection.closed() => return Ended::Closed,
                        opened = self.attempt() => opened,
                    };
                    match opened {
                        Ok(successor) => return Ended::Replaced(successor),
                        // It was a primary, and is none any more.
                        Err(failure) if failure.kind == ErrorKind::ReadOnly => {
                            return Ended::Refused(failure);
                        }
                        // Callers go on with the present connection unless there is another.
                        Err(_) => {}
                    }
                }
                () = self.io.sleep(patience) => connection.measure_next(),
            }
            if ear.finds_silent(connection) {
                connection.set_silent(true);
                self.set_silent(connection);
                if let Some(ended) = self.doubt(connection, patience).await {
                    return ended;
                }
                // It was only slow.
                trust.grow();
                connection.set_silent(false);
                self.set_live(connection);
                ear = Ear::to(connection);
            } else if self.config.mode == Mode::Standalone && role.elapsed() >= ROLE {
                role = Instant::now();
                let hello = connection.control(&[b"HELLO", b"3"], role + patience).await;
                if let Sent::Reply(hello) = hello
                    && hello::is_replica(&hello)
                {
                    return Ended::Refused(hello::replica(&self.node.address));
                }
            }
        }
    }

    /// Decides whether a silent connection is dead. `None`: it spoke again.
    ///
    /// It is asked for a sign of life first, and only then is another one opened: a server that
    /// stalls for a moment is not met with new connections of all its clients. A hung server
    /// answers on no connection, so the old one is kept: its answers may still come. A new
    /// connection that works takes over. What was read on the old one is read again on the new one;
    /// a write goes on waiting for its answer until its own deadline, because a server that is
    /// paused answers in the end.
    async fn doubt(&self, connection: &Arc<Connection>, patience: Duration) -> Option<Ended> {
        let heard = connection.heard();
        let successor = async {
            let mut backoff = Backoff::up_to(PROBE);
            self.io.sleep(jittered(patience)).await;
            loop {
                if connection.heard() != heard {
                    return None;
                }
                match self.attempt().await {
                    // The old one gets as long again to answer: both may have been stuck.
                    Ok(successor) => {
                        self.io.sleep(patience.min(Duration::from_millis(100))).await;
                        return Some(Ended::Replaced(successor));
                    }
                    // Nothing runs there any more that could answer.
                    Err(failure) if failure.is_refusal() => {
                        connection.kill();
                        return Some(Ended::Refused(failure));
                    }
                    Err(failure) => {
                        self.failed(failure);
                        self.io.sleep(backoff.pause()).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            is_alive = probe(connection) => (!is_alive).then_some(Ended::Closed),
            () = connection.closed() => Some(Ended::Closed),
            ended = successor => ended,
        }
    }
}
