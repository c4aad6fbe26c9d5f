//! One live connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::config::{Mode, ValkeyConfig};
use crate::io::Io;
use crate::io::task::Task;
use crate::node::dial::Socket;
use crate::node::driver::{Driver, Shared};
use crate::node::failure::Failure;
use crate::node::hello::Hello;
use crate::node::identity::{Node, id_in_nodes};
use crate::node::open::open;
use crate::node::queue::{Queue, Queued, Traffic};
use crate::node::transport::Transport;
use crate::node::waiters::Waiters;
use crate::protocol::decode::Decoder;
use crate::protocol::reply::Reply;
use crate::protocol::request::{Body, Form, Native, Payload, Request, Safety};
use crate::protocol::verdict::is_unsupported;

pub(crate) use crate::node::queue::Sent;

/// So many bytes of a request take one more permit: the permits bound bytes as well.
const BYTES_PER_PERMIT: usize = 64 * 1024;

/// One connection, logged in and checked. It closes at once when its last user drops it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Where it leads, and to which node of a cluster.
    pub(crate) node: Node,
    peer: Option<SocketAddr>,
    shared: Arc<Shared>,
    max_in_flight: usize,
    io: Io,
    /// It owes an answer and does not speak: nothing more is sent.
    silent: AtomicBool,
    /// The optional commands that this server has, one bit each.
    native: AtomicU8,
    pub(crate) tracking: bool,
    driver: Task,
}

impl Connection {
    /// Connects, logs in and checks that this node answers, within the connection time-out.
    pub(crate) async fn open(
        node: &Node,
        config: &Arc<ValkeyConfig>,
        io: &Io,
    ) -> Result<Arc<Self>, Failure> {
        let address = &node.address;
        let opening = {
            let (node, config, io) = (node.clone(), Arc::clone(config), io.clone());
            async move { Self::open_here(node, &config, &io).await }
        };
        // A socket belongs to the thread on which it is opened, and so does its driver.
        let opened = io.run(opening).await;
        opened.unwrap_or_else(|| Err(Failure::unavailable(address, "the I/O thread has ended")))
    }

    async fn open_here(
        node: Node,
        config: &Arc<ValkeyConfig>,
        io: &Io,
    ) -> Result<Arc<Self>, Failure> {
        let address = &node.address;
        let finish = async |socket, hello: Hello| {
            let found = Node { address: address.clone(), id: hello.node_id.clone() };
            let mut connection = Self::new(found, socket, &hello, config, io);
            if config.mode == Mode::Cluster && connection.node.id.is_none() {
                // This user may not ask `CLUSTER MYID`.
                let until = Instant::now() + config.connect_timeout;
                let nodes = connection.control(&[b"CLUSTER", b"NODES"], until).await;
                if let Sent::Reply(nodes) = nodes {
                    connection.node.id = id_in_nodes(&nodes);
                }
            }
            match (&node.id, &connection.node.id) {
                (Some(meant), Some(id)) if meant != id => {
                    let message = "another node answers at this address";
                    Err(Failure::unavailable(address, message))
                }
                _ => Ok(Arc::new(connection)),
            }
        };
        // What a cluster announces stays a node's name; only here it matters where that is reached.
        open(&config.reached_at(address.clone()), config, finish).await
    }

    /// A connection over `socket`, on which the server has said `hello`.
    fn new(node: Node, socket: Socket, hello: &Hello, config: &ValkeyConfig, io: &Io) -> Self {
        let peer = socket.peer();
        let transport = Transport::new(socket);
        let queue = Queue::new(transport.direct());
        let shared = Arc::new(Shared::new(queue, config.max_in_flight));
        let decoder = Decoder::new(config.max_bulk_bytes);
        let alarm = io.sleep(config.op_timeout);
        let driver = io.spawn(Driver::new(Arc::clone(&shared), transport, decoder, alarm));
        Self {
            node,
            peer,
            shared,
            max_in_flight: config.max_in_flight,
            io: io.clone(),
            silent: AtomicBool::new(false),
            native: AtomicU8::new(hello.native),
            tracking: hello.tracking,
            driver,
        }
    }

    /// Which server it leads to, whatever its name is; none for a Unix socket.
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "spans show it"))]
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    pub(crate) fn waiters(&self) -> &Waiters {
        &self.shared.waiters
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.shared.queue().has_ended()
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// Whether requests may be sent.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_open() && !self.is_silent()
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Returns once the connection has ended.
    pub(crate) async fn closed(&self) {
        // The sender lives in `self`: this waits, it cannot fail.
        let _ = self.shared.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Ends the connection; requests without an answer are lost.
    pub(crate) fn kill(&self) {
        self.driver.stop();
        self.shared.close(None);
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.shared.queue().traffic()
    }

    /// Measures the round trip of the next request.
    pub(crate) fn measure_next(&self) {
        self.shared.queue().measure_next();
    }

    /// How many requests have no answer, and how long one takes, smoothed.
    pub(crate) fn load(&self) -> (usize, Option<Duration>) {
        let queue = self.shared.queue();
        (queue.in_flight(), queue.round_trip())
    }

    /// Bytes that have come from the server.
    pub(crate) fn heard(&self) -> u64 {
        self.shared.heard.load(Ordering::Relaxed)
    }

    /// Another connection has taken over: what only reads is told to read there, and what waits
    /// for its turn is sent there.
    pub(crate) fn give_up(&self) {
        self.shared.queue().give_reads_back();
        self.shared.permits.close();
    }

    /// Sends a command that keeps the link itself alive, also when requests may not be sent.
    pub(crate) async fn control(&self, args: &[&[u8]], until: Instant) -> Sent {
        self.transmit(Payload::Command(args), Safety::Once, 0, until).await
    }

    /// Sends a request and waits for its answer until the deadline, waiting its turn included.
    pub(crate) async fn send(&self, payload: Payload<'_>, safety: Safety, until: Instant) -> Sent {
        if self.is_silent() {
            return Sent::Unsent;
        }
        let most = self.max_in_flight.div_ceil(2);
        let cost = (1 + payload.len() / BYTES_PER_PERMIT).min(most) as u32;
        match self.shared.permits.try_acquire_many(cost) {
            Ok(permit) => permit.forget(),
            Err(_) => {
                // Boxed: few calls have to wait, and the future of all others stays small.
                let turn = Box::pin(self.shared.permits.acquire_many(cost));
                match self.io.timeout_at(until, turn).await {
                    Ok(Ok(permit)) if !self.is_silent() => permit.forget(),
                    _ => return Sent::Unsent,
                }
            }
        }
        self.transmit(payload, safety, cost as usize, until).await
    }

    /// Sends commands back to back; each gets its own answer.
    pub(crate) async fn send_all(
        &self,
        payload: Payload<'_>,
        safety: Safety,
        until: Instant,
    ) -> Sent<Vec<Reply>> {
        let count = payload.replies();
        self.send(payload, safety, until).await.map(|reply| match reply {
            Reply::Array(replies) if count != 1 => replies,
            reply => vec![reply],
        })
    }

    async fn transmit(
        &self,
        payload: Payload<'_>,
        safety: Safety,
        cost: usize,
        until: Instant,
    ) -> Sent {
        let Some(queued) = self.push(payload, safety, cost, until) else { return Sent::Unsent };
        queued.answer.await.unwrap_or(Sent::Lost)
    }

    fn push(
        &self,
        payload: Payload<'_>,
        safety: Safety,
        cost: usize,
        until: Instant,
    ) -> Option<Queued> {
        // What takes long to copy is copied before the lock is taken.
        let payload = payload.packed_if_over(BYTES_PER_PERMIT);
        let queued = self.shared.queue().push(payload, safety, cost, until)?;
        if queued.wake {
            self.shared.driver.wake();
        }
        Some(queued)
    }

    /// Sends a request in the form that this server knows. `asking` follows an `ASK` redirect.
    pub(crate) async fn execute(
        &self,
        request: &Request<'_>,
        asking: bool,
        until: Instant,
    ) -> Sent {
        let mut form = self.form_of(request);
        loop {
            let args = request.in_form(form);
            let payload = if asking { Payload::Asking(&args) } else { Payload::Command(&args) };
            // One await point for all forms: each more would add to the future of every call.
            let sent = match self.send(payload, request.safety, until).await {
                Sent::Reply(Reply::Array(mut replies)) if asking => match replies.pop() {
                    Some(reply) => Sent::Reply(reply),
                    None => Sent::Lost,
                },
                sent => sent,
            };
            let next = match (form, &sent) {
                (Form::Native(native), Sent::Reply(Reply::ServerError(error)))
                    if is_unsupported(error) =>
                {
                    self.native.fetch_and(!native.bit(), Ordering::Relaxed);
                    Form::Digest
                }
                (Form::Digest, Sent::Reply(Reply::ServerError(error)))
                    if error.code() == "NOSCRIPT" =>
                {
                    Form::Text
                }
                _ => return sent,
            };
            // The caller may not have been run for long. What was refused has done nothing.
            if Instant::now() >= until {
                return Sent::Unsent;
            }
            form = next;
        }
    }

    /// The form in which a request is sent first.
    pub(crate) fn form_of(&self, request: &Request<'_>) -> Form {
        match &request.body {
            Body::Command(_) => Form::Plain,
            Body::Script { native: Some((native, _)), .. } if self.has(*native) => {
                Form::Native(*native)
            }
            Body::Script { .. } => Form::Digest,
        }
    }

    fn has(&self, native: Native) -> bool {
        self.native.load(Ordering::Relaxed) & native.bit() != 0
    }
}
