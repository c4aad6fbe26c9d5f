//! The self-healing link to one node.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::address::Address;
use crate::config::ValkeyConfig;
use crate::io::backoff::Backoff;
use crate::io::task::Task;
use crate::node::failure::Failure;
use crate::node::wire::{Sent, Wire};

/// How long a connection is kept at least, whoever asks for a fresh one: a replica goes on refusing.
const RENEWAL: Duration = Duration::from_millis(500);

/// A node, connected now or soon.
///
/// One task of its own connects, watches the connection, and connects again after whatever
/// happened, so that any number of callers share one attempt and no failure is ever final. The
/// task ends with the link.
#[derive(Debug)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    _supervisor: Task,
}

#[derive(Debug)]
struct Shared {
    address: Address,
    config: Arc<ValkeyConfig>,
    state: watch::Sender<State>,
    /// Asks for a fresh connection beside a healthy one.
    renew: Notify,
}

#[derive(Debug)]
enum State {
    Connecting(Option<Failure>),
    Live(Arc<Wire>),
    /// It owes an answer and is silent: nothing more is sent until it speaks or is replaced.
    Silent(Arc<Wire>),
}

impl Link {
    /// A link that begins to connect at once.
    pub(crate) fn new(address: Address, config: Arc<ValkeyConfig>) -> Arc<Self> {
        Self::start(address, config, None)
    }

    /// A link over a connection that is there already.
    pub(crate) fn over(address: Address, config: Arc<ValkeyConfig>, wire: Arc<Wire>) -> Arc<Self> {
        Self::start(address, config, Some(wire))
    }

    fn start(address: Address, config: Arc<ValkeyConfig>, wire: Option<Arc<Wire>>) -> Arc<Self> {
        let state = match &wire {
            Some(wire) => State::Live(Arc::clone(wire)),
            None => State::Connecting(None),
        };
        let shared = Arc::new(Shared {
            address,
            config,
            state: watch::Sender::new(state),
            renew: Notify::new(),
        });
        let supervisor = Task::spawn(supervise(Arc::clone(&shared), wire));
        Arc::new(Self { shared, _supervisor: supervisor })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.shared.address
    }

    /// The connection, where there is a healthy one now.
    pub(crate) fn live(&self) -> Option<Arc<Wire>> {
        match &*self.shared.state.borrow() {
            State::Live(wire) if wire.is_ready() => Some(Arc::clone(wire)),
            _ => None,
        }
    }

    /// Waits for a healthy connection, for as long as it takes.
    pub(crate) async fn wire(&self) -> Arc<Wire> {
        let mut changes = self.shared.state.subscribe();
        loop {
            if let Some(wire) = self.live() {
                return wire;
            }
            // The sender lives in `self`: this waits, it cannot fail.
            let _ = changes.changed().await;
        }
    }

    /// Why there is no connection now, where the last attempt has failed.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match &*self.shared.state.borrow() {
            State::Connecting(failure) => failure.clone(),
            _ => None,
        }
    }

    /// Asks for a fresh connection, now or soon, for when the name may lead to another server now.
    /// What is under way on the present one is finished there.
    pub(crate) fn renew(&self) {
        self.shared.renew.notify_one();
    }

    /// Gives up a node that is no longer in the cluster's map: where it is silent, what waits for
    /// it is released.
    pub(crate) fn retire(&self) {
        if let State::Silent(wire) = &*self.shared.state.borrow() {
            wire.kill();
        }
    }
}

async fn supervise(shared: Arc<Shared>, first: Option<Arc<Wire>>) {
    let mut next = first;
    loop {
        let wire = match next.take() {
            Some(wire) => wire,
            None => shared.connect().await,
        };
        shared.state.send_replace(State::Live(Arc::clone(&wire)));
        next = shared.watch(&wire).await;
        if next.is_none() {
            shared.state.send_replace(State::Connecting(None));
        }
    }
}

impl Shared {
    /// Connects, however often that takes.
    async fn connect(&self) -> Arc<Wire> {
        let mut backoff = Backoff::up_to(Duration::from_millis(960));
        loop {
            match Wire::open(&self.address, &self.config).await {
                Ok(wire) => return wire,
                Err(failure) => {
                    self.state.send_replace(State::Connecting(Some(failure)));
                    backoff.sleep().await;
                }
            }
        }
    }

    /// Returns when `wire` has served its time, with its successor where there is one.
    async fn watch(&self, wire: &Arc<Wire>) -> Option<Arc<Wire>> {
        // Twice per deadline and more: a dead connection is replaced in time for a retry.
        let step = (self.config.op_timeout / 4)
            .clamp(Duration::from_millis(10), Duration::from_millis(500));
        let mut ear = Ear::to(wire);
        let mut renewed = Instant::now();
        loop {
            let renewal = async {
                sleep_until(renewed + RENEWAL).await;
                self.renew.notified().await;
            };
            tokio::select! {
                () = wire.closed() => return None,
                () = renewal => {
                    renewed = Instant::now();
                    // Callers go on with the present connection unless there is another.
                    if let Ok(successor) = Wire::open(&self.address, &self.config).await {
                        return Some(successor);
                    }
                }
                () = sleep(step) => {}
            }
            if ear.finds_silent(wire, self.config.op_timeout.max(step)) {
                wire.set_silent(true);
                self.state.send_replace(State::Silent(Arc::clone(wire)));
                if let Some(successor) = self.doubt(wire, step).await {
                    wire.kill();
                    return successor;
                }
                wire.set_silent(false);
                self.state.send_replace(State::Live(Arc::clone(wire)));
                ear = Ear::to(wire);
            }
        }
    }

    /// Decides whether a silent connection is dead. `None`: it spoke again. Otherwise it is to be
    /// replaced, by the successor where there is one.
    ///
    /// A hung server answers on no connection, so the old one is kept: its answers may still
    /// come. A new connection that works while the old one stays silent proves the old one dead.
    async fn doubt(&self, wire: &Arc<Wire>, step: Duration) -> Option<Option<Arc<Wire>>> {
        let successor = async {
            let mut backoff = Backoff::up_to(Duration::from_millis(960));
            loop {
                match Wire::open(&self.address, &self.config).await {
                    // The old one gets as long again to answer: both may have been stuck.
                    Ok(successor) => {
                        sleep(step.min(Duration::from_millis(100))).await;
                        return Some(successor);
                    }
                    Err(failure) if failure.is_refusal() => return None,
                    Err(_) => backoff.sleep().await,
                }
            }
        };
        tokio::select! {
            biased;
            alive = probe(wire) => if alive { None } else { Some(None) },
            () = wire.closed() => Some(None),
            successor = successor => Some(successor),
        }
    }
}

/// Listens to a connection, and finds it silent where an answer is due and does not come.
struct Ear {
    traffic: u64,
    heard: u64,
    /// Since when an answer has been due without a byte from the server.
    due: Option<Instant>,
}

impl Ear {
    fn to(wire: &Wire) -> Self {
        Self { traffic: wire.traffic(), heard: wire.heard(), due: None }
    }

    /// To be asked again and again. Silent is who does nothing at all, and who takes requests for
    /// longer than any caller waits and says nothing: a hole acknowledges whatever is sent. A
    /// request that takes long to leave is progress until then.
    fn finds_silent(&mut self, wire: &Wire, patience: Duration) -> bool {
        let before = std::mem::replace(self, Self { due: self.due, ..Self::to(wire) });
        if self.heard != before.heard {
            wire.forget_abandoned();
        }
        if !wire.expects_answer() || self.heard != before.heard {
            self.due = None;
            return false;
        }
        let due = *self.due.get_or_insert_with(Instant::now);
        self.traffic == before.traffic || due.elapsed() >= patience
    }
}

/// Asks for an echo, and checks it: an answer that belongs to another request shows that the
/// stream is out of step, which nothing but a new connection cures.
async fn probe(wire: &Wire) -> bool {
    let nonce = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8).to_string();
    match wire.send_control(redis::cmd("PING").arg(&nonce)).await {
        Sent::Reply(redis::Value::BulkString(echo)) => echo == nonce.as_bytes(),
        _ => false,
    }
}

/// Waits for a healthy connection for at most `at_most`.
pub(crate) async fn wire_within(link: &Link, at_most: Duration) -> Option<Arc<Wire>> {
    match link.live() {
        Some(wire) => Some(wire),
        None => timeout(at_most, link.wire()).await.ok(),
    }
}
