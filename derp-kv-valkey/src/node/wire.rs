//! One live connection.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use derp_kv_core::ErrorKind;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo, Value,
};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::address::Address;
use crate::config::{Mode, ValkeyConfig};
use crate::io::task::Task;
use crate::node::dial::dial;
use crate::node::failure::Failure;
use crate::node::hello::{self, Hello};
use crate::node::stream::Meter;
use crate::node::waiters::Waiters;
use crate::protocol::reply::is_unsupported;
use crate::protocol::request::{Body, Form, Native, Request};

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Sent<T = Value> {
    /// The server answered; an error reply is an answer too.
    Reply(T),
    /// Not a byte of it left.
    Unsent,
    /// The connection ended first: the server may have executed it.
    Lost,
}

/// One connection, logged in and checked.
///
/// Dropped with its last user, it closes at once.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) address: Address,
    connection: MultiplexedConnection,
    meter: Arc<Meter>,
    /// Bounds the requests under way, and with them the memory that a silent node can bind.
    permits: Semaphore,
    max_in_flight: usize,
    /// It owes an answer and does not speak: nothing more is sent.
    silent: AtomicBool,
    /// A caller gave up on an answer that may still be under way.
    abandoned: AtomicBool,
    /// The optional commands that this server has, one bit each.
    native: AtomicU8,
    pub(crate) tracking: bool,
    pub(crate) waiters: Arc<Waiters>,
    closed: watch::Receiver<bool>,
    driver: Task,
}

/// A request under way; dropped without an answer, it leaves the connection in doubt.
struct Unanswered<'a>(&'a Wire);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Wire {
    /// Connects, logs in and checks that the server runs in the configured mode, all within the
    /// connection time-out.
    pub(crate) async fn open(
        address: &Address,
        config: &Arc<ValkeyConfig>,
    ) -> Result<Arc<Self>, Failure> {
        let connected = Self::connect(address, config);
        match tokio::time::timeout(config.connect_timeout, connected).await {
            Ok(result) => result,
            Err(_) => {
                let hint = if config.use_tls { " (is it a TLS port?)" } else { "" };
                let message = format!("no connection within {:?}{hint}", config.connect_timeout);
                Err(Failure::new(ErrorKind::Timeout, address, &message))
            }
        }
    }

    async fn connect(address: &Address, config: &Arc<ValkeyConfig>) -> Result<Arc<Self>, Failure> {
        let meter = Arc::new(Meter::default());
        let stream = dial(address, config, Arc::clone(&meter)).await?;
        let waiters = Arc::new(Waiters::default());
        let (connection, driver) = MultiplexedConnection::new_with_config(
            &login(config),
            stream,
            AsyncConnectionConfig::new()
                // One deadline covers the whole operation.
                .set_response_timeout(None)
                .set_connection_timeout(None)
                // The permits bound what is under way: nobody shall wait a second time.
                .set_pipeline_buffer_size(config.max_in_flight)
                .set_push_sender({
                    let waiters = Arc::clone(&waiters);
                    move |info: PushInfo| -> Result<(), ()> {
                        waiters.push(&info);
                        Ok(())
                    }
                }),
        )
        .await
        .map_err(|error| hello::login_failure(address, config, &error))?;
        let (closing, closed) = watch::channel(false);
        let driver = Task::spawn({
            let (meter, waiters) = (Arc::clone(&meter), Arc::clone(&waiters));
            async move {
                driver.await;
                meter.set_broken();
                waiters.wake_all();
                closing.send_replace(true);
            }
        });
        let hello = Hello::ask(&connection, address, config).await?;
        match (hello.is_cluster, config.mode) {
            (true, Mode::Standalone) => {
                return Err(hello::wrong_mode(
                    address,
                    "the server is a node of a cluster: set mode = \"cluster\"",
                ));
            }
            (false, Mode::Cluster) => {
                return Err(hello::wrong_mode(
                    address,
                    "the server is not a node of a cluster: set mode = \"standalone\"",
                ));
            }
            _ => {}
        }
        Ok(Arc::new(Self {
            address: address.clone(),
            connection,
            meter,
            permits: Semaphore::new(config.max_in_flight),
            max_in_flight: config.max_in_flight,
            silent: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            native: AtomicU8::new(hello.native),
            tracking: hello.tracking,
            waiters,
            closed,
            driver,
        }))
    }

    /// Waits for a turn. The permit is held while a request is under way. `None`: the connection
    /// has been given up.
    pub(crate) async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        match self.permits.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => self.permits.acquire().await.ok(),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.meter.is_broken()
    }

    /// Whether requests may be sent.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_open() && !self.silent.load(Ordering::Relaxed)
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
        if !silent {
            self.abandoned.store(false, Ordering::Relaxed);
        }
    }

    /// Returns once the connection has ended.
    pub(crate) async fn closed(&self) {
        // An error means that the task is gone, which is an end as well.
        let _ = self.closed.clone().wait_for(|closed| *closed).await;
    }

    /// Ends the connection; requests without an answer are lost.
    pub(crate) fn kill(&self) {
        self.meter.set_broken();
        self.driver.stop();
        self.permits.close();
        self.waiters.wake_all();
    }

    /// Whether an answer is due.
    pub(crate) fn expects_answer(&self) -> bool {
        self.permits.available_permits() < self.max_in_flight
            || self.abandoned.load(Ordering::Relaxed)
    }

    pub(crate) fn forget_abandoned(&self) {
        self.abandoned.store(false, Ordering::Relaxed);
    }

    /// Bytes that have passed in either direction.
    pub(crate) fn traffic(&self) -> u64 {
        self.meter.total()
    }

    /// Bytes that have come from the server.
    pub(crate) fn heard(&self) -> u64 {
        self.meter.read()
    }

    /// Sends what keeps the link itself alive, also when requests may not be sent.
    pub(crate) async fn send_control(&self, cmd: &Cmd) -> Sent {
        let mut connection = self.connection.clone();
        self.exchange(pin!(connection.send_packed_command(cmd))).await
    }

    pub(crate) async fn send(&self, cmd: &Cmd) -> Sent {
        if !self.is_ready() {
            return Sent::Unsent;
        }
        let mut connection = self.connection.clone();
        self.exchange(pin!(connection.send_packed_command(cmd))).await
    }

    /// Sends commands back to back; each gets its own answer.
    pub(crate) async fn send_all(&self, pipeline: &Pipeline, count: usize) -> Sent<Vec<Value>> {
        if !self.is_ready() {
            return Sent::Unsent;
        }
        let mut connection = self.connection.clone();
        self.exchange(pin!(connection.send_packed_commands(pipeline, 0, count))).await
    }

    /// Takes the request pinned in its caller: moved in here, its thousand bytes would count twice
    /// in every call's future.
    async fn exchange<T>(
        &self,
        answer: Pin<&mut impl Future<Output = redis::RedisResult<T>>>,
    ) -> Sent<T> {
        // Read before the request is handed over: none of its bytes are in it.
        let written = self.meter.written();
        if !self.is_open() {
            return Sent::Unsent;
        }
        let unanswered = Unanswered(self);
        let answer = answer.await;
        std::mem::forget(unanswered);
        match answer {
            Ok(value) => Sent::Reply(value),
            // The connection writes nothing more after it has failed a request.
            Err(_) if self.meter.written() == written => Sent::Unsent,
            Err(_) => Sent::Lost,
        }
    }

    /// Sends a request in the form that this server knows. `asking` follows an `ASK` redirect.
    pub(crate) async fn execute(&self, request: &Request<'_>, asking: bool) -> Sent {
        let mut form = match &request.body {
            Body::Command(_) => Form::Plain,
            Body::Script { native: Some((native, _)), .. } if self.has(*native) => {
                Form::Native(*native)
            }
            Body::Script { .. } => Form::Digest,
        };
        loop {
            // One await point for all forms: each more would add to the future of every call.
            let sent = self.send_once(&request.in_form(form), asking).await;
            form = match (form, &sent) {
                (Form::Native(native), Sent::Reply(Value::ServerError(error)))
                    if is_unsupported(error) =>
                {
                    self.native.fetch_and(!native.bit(), Ordering::Relaxed);
                    Form::Digest
                }
                (Form::Digest, Sent::Reply(Value::ServerError(error)))
                    if error.code() == "NOSCRIPT" =>
                {
                    Form::Text
                }
                _ => return sent,
            };
        }
    }

    async fn send_once(&self, cmd: &Cmd, asking: bool) -> Sent {
        if !asking {
            return self.send(cmd).await;
        }
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("ASKING").add_command(cmd.clone());
        // Rare, and boxed so that it adds nothing to the future of every call.
        match Box::pin(self.send_all(&pipeline, 2)).await {
            Sent::Reply(mut replies) => match replies.pop() {
                Some(reply) => Sent::Reply(reply),
                None => Sent::Lost,
            },
            Sent::Unsent => Sent::Unsent,
            Sent::Lost => Sent::Lost,
        }
    }

    fn has(&self, native: Native) -> bool {
        self.native.load(Ordering::Relaxed) & native.bit() != 0
    }
}

fn login(config: &ValkeyConfig) -> RedisConnectionInfo {
    let mut login =
        RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    if let Some(username) = &config.username {
        login = login.set_username(username);
    }
    if let Some(password) = &config.password {
        login = login.set_password(password);
    }
    login
}
