//! The self-healing link to one node.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use derp_kv_core::ErrorKind;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};

use crate::address::Address;
use crate::config::{Mode, ValkeyConfig};
use crate::io::backoff::{Backoff, jittered};
use crate::io::task::Task;
use crate::io::{Io, Threads};
use crate::node::connection::{Connection, Sent};
use crate::node::failure::Failure;
use crate::node::health::{Ear, Trust, probe};
use crate::node::hello;
use crate::node::identity::Node;

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

/// A node, connected now or soon.
///
/// One task of its own, on the I/O thread, connects, watches the connection, and connects again
/// after whatever happened, so that any number of callers share one attempt and no failure is ever
/// final. The task ends with the link.
#[derive(Debug)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    /// More links to the same node, where it has several connections.
    beside: Vec<Arc<Link>>,
    _supervisor: Task,
}

#[derive(Debug)]
struct Shared {
    node: Node,
    config: Arc<ValkeyConfig>,
    io: Io,
    state: watch::Sender<State>,
    /// Asks for a fresh connection beside a healthy one.
    renew: Notify,
}

#[derive(Debug)]
enum State {
    Live(Arc<Connection>),
    Down(Down),
}

/// There is no connection to send requests on.
#[derive(Debug)]
struct Down {
    since: Instant,
    /// Why the last attempt to connect failed, where one has.
    failure: Option<Failure>,
    /// It owes an answer and is silent: nothing more is sent until it speaks or is replaced.
    silent: Option<Arc<Connection>>,
}

impl State {
    fn down() -> Self {
        Self::Down(Down { since: Instant::now(), failure: None, silent: None })
    }
}

impl Link {
    /// A link that begins to connect at once.
    pub(crate) fn new(node: Node, config: Arc<ValkeyConfig>, threads: &Threads) -> Arc<Self> {
        let state = State::down();
        Self::start(node, config, threads, 0, state, None)
    }

    /// A link over a connection that is there already.
    pub(crate) fn over(
        node: Node,
        config: Arc<ValkeyConfig>,
        threads: &Threads,
        connection: Arc<Connection>,
    ) -> Arc<Self> {
        let state = State::Live(Arc::clone(&connection));
        Self::start(node, config, threads, 0, state, Some(connection))
    }

    fn start(
        node: Node,
        config: Arc<ValkeyConfig>,
        threads: &Threads,
        lane: usize,
        state: State,
        connection: Option<Arc<Connection>>,
    ) -> Arc<Self> {
        let state = watch::Sender::new(state);
        let renew = Notify::new();
        let io = threads.of((&node.address, lane)).clone();
        let more = if lane == 0 { config.connections } else { 0 };
        let beside = (1..more).map(|lane| {
            let state = State::down();
            Self::start(node.clone(), Arc::clone(&config), threads, lane, state, None)
        });
        let beside = beside.collect();
        let shared = Arc::new(Shared { node, config, io: io.clone(), state, renew });
        let supervisor = io.spawn(supervise(Arc::clone(&shared), connection));
        Arc::new(Self { shared, beside, _supervisor: supervisor })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.shared.node.address
    }

    /// The node that it leads to and no other, where its id is known.
    pub(crate) fn node(&self) -> &Node {
        &self.shared.node
    }

    /// The link for `key`. What is written to one key goes over one connection, so that it arrives in
    /// the order in which it was sent.
    pub(crate) fn of<'a>(self: &'a Arc<Self>, key: &[u8]) -> &'a Arc<Self> {
        if self.beside.is_empty() {
            return self;
        }
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key) as usize;
        self.beside.get(hash % (self.beside.len() + 1)).unwrap_or(self)
    }

    /// The connection, where there is a healthy one now.
    pub(crate) fn live(&self) -> Option<Arc<Connection>> {
        match &*self.shared.state.borrow() {
            State::Live(connection) if !connection.is_silent() => Some(Arc::clone(connection)),
            _ => None,
        }
    }

    /// Waits for a healthy connection, for as long as it takes.
    pub(crate) async fn connection(&self) -> Arc<Connection> {
        let mut changes = self.shared.state.subscribe();
        loop {
            if let Some(connection) = self.live() {
                return connection;
            }
            // The sender lives in `self`: this waits, it cannot fail.
            let _ = changes.changed().await;
        }
    }

    /// Why there is no connection now, where the last attempt has failed.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match &*self.shared.state.borrow() {
            State::Down(down) => down.failure.clone(),
            State::Live(_) => None,
        }
    }

    /// Why there has been no connection for a whole deadline: nobody should wait for one.
    pub(crate) fn lasting_failure(&self) -> Option<Failure> {
        match &*self.shared.state.borrow() {
            State::Down(down) if down.since.elapsed() >= self.shared.config.op_timeout => {
                let unknown = || Failure::unavailable(self.address(), "the server does not answer");
                Some(down.failure.clone().unwrap_or_else(unknown).lasting())
            }
            _ => None,
        }
    }

    /// Asks for a fresh connection, now or soon, for when the name may lead to another server now.
    /// What is written on the present one is answered there.
    pub(crate) fn renew(&self) {
        self.shared.renew.notify_one();
        self.beside.iter().for_each(|link| link.renew());
    }

    /// Gives up a node that is no longer in the cluster's map: where it is silent, what waits for
    /// it is released.
    pub(crate) fn retire(&self) {
        if let State::Down(Down { silent: Some(connection), .. }) = &*self.shared.state.borrow() {
            connection.kill();
        }
        self.beside.iter().for_each(|link| link.retire());
    }
}

async fn supervise(shared: Arc<Shared>, first: Option<Arc<Connection>>) {
    let mut next = first;
    let mut trust = Trust::in_answers_within(shared.config.op_timeout);
    let mut flaps = Backoff::up_to(FLAP);
    let mut is_successor = false;
    loop {
        let connection = match next.take() {
            Some(connection) => connection,
            None => shared.connect().await,
        };
        shared.state.send_replace(State::Live(Arc::clone(&connection)));
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
    /// Notes that there is no connection; it may have been silent for a while already.
    fn set_down(&self, failure: Option<Failure>) {
        self.state.send_modify(|state| {
            let since = match state {
                State::Down(down) => down.since,
                State::Live(_) => Instant::now(),
            };
            *state = State::Down(Down { since, failure, silent: None });
        });
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
                () = self.io.sleep(patience) => {}
            }
            if ear.finds_silent(connection) {
                connection.set_silent(true);
                let silent = Some(Arc::clone(connection));
                let down = Down { since: Instant::now(), failure: None, silent };
                self.state.send_replace(State::Down(down));
                if let Some(ended) = self.doubt(connection, patience).await {
                    return ended;
                }
                // It was only slow.
                trust.grow();
                connection.set_silent(false);
                self.state.send_replace(State::Live(Arc::clone(connection)));
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
