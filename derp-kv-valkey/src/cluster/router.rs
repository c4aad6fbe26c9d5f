//! One call from its key to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use derp_kv_core::{Error, ErrorKind, Result};

use crate::address::Address;
use crate::cluster::discovery;
use crate::cluster::slots::slot_of;
use crate::cluster::view::{Moved, View, another_cluster};
use crate::config::{Mode, ValkeyConfig};
use crate::io::backoff::Backoff;
use crate::io::task::Task;
use crate::io::{Io, Threads};
use crate::node::connection::{Connection, Sent};
use crate::node::failure::{Failure, broken, lost};
use crate::node::identity::Node;
use crate::node::link::Link;
use crate::observe::span::CommandSpan;
use crate::protocol::reply::{ErrorReply, Reply};
use crate::protocol::request::{Body, Request, Safety};
use crate::protocol::shape;
use crate::protocol::verdict::{Verdict, classify, describe};

/// How long a call waits for a node's connection before it looks whether the slot has moved.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Finds the node of each key and drives a call to its end.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) view: Arc<View>,
    _refresher: Option<Task>,
}

/// What follows one attempt.
enum Next {
    Done(Result<Reply>),
    /// To where the slot is said to be now.
    Redirected,
    /// Once to this node, whoever owns the slot.
    Ask(Arc<Link>),
    /// After a pause.
    Later,
}

/// What a call has been waiting for, for when its deadline passes.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) obstacle: Option<Error>,
}

impl Router {
    /// Connects, and fails at once where the servers cannot be used.
    pub(crate) async fn connect(mut config: ValkeyConfig) -> Result<Self> {
        config.check()?;
        config.watcher = config.watcher.of_a_store();
        let threads = Threads::start(config.io_threads)?;
        let io = threads.main().clone();
        let connecting = async move {
            let config = Arc::new(config);
            let topology = discovery::connect(&config, &threads).await?;
            let view = Arc::new(View::new(config, threads, topology));
            let refresher = (view.config.mode == Mode::Cluster)
                .then(|| view.threads.main().spawn(discovery::keep_fresh(Arc::clone(&view))));
            Ok(Self { view, _refresher: refresher })
        };
        io.run(connecting).await.unwrap_or_else(|| Err(shape::unexpected()))
    }

    pub(crate) fn io(&self) -> &Io {
        self.view.threads.main()
    }

    /// When an operation that begins now must have ended.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.config().op_timeout
    }

    pub(crate) fn config(&self) -> &ValkeyConfig {
        &self.view.config
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.view.config.mode == Mode::Cluster
    }

    /// Runs one request to its answer, which `read` understands, or to the deadline.
    ///
    /// The straight way, which nearly every call takes, is a healthy connection and an answer, which
    /// the connection gives before the deadline. Whatever else happens is boxed, so that this stays
    /// small and fast.
    pub(crate) async fn call<T>(
        &self,
        request: &Request<'_>,
        read: impl FnOnce(Reply) -> Result<T>,
    ) -> Result<T> {
        let until = self.deadline();
        let connection = self.view.live(self.slot(request.key), request.key);
        let span = CommandSpan::of(&self.view.server, request, connection.as_deref());
        let answered = match connection {
            None => Box::pin(self.drive_on(request, until, None, &span)).await,
            Some(connection) => match connection.execute(request, false, until).await {
                Sent::Reply(reply) if !matches!(reply, Reply::ServerError(_)) => {
                    span.reached(&connection);
                    Ok(reply)
                }
                sent => {
                    let first = Some((connection, sent));
                    Box::pin(self.drive_on(request, until, first, &span)).await
                }
            },
        };
        // The server has answered a write: whatever it meant, it may have done it.
        let once = request.safety == Safety::Once;
        let answered = answered
            .and_then(|reply| read(reply).map_err(|error| error.with_may_have_applied(once)))
            .map_err(|error| error.with_operation(request.operation));
        span.ended(&answered);
        answered
    }

    /// Runs one request to its answer, or to the deadline.
    pub(crate) async fn drive(&self, request: &Request<'_>, until: Instant) -> Result<Reply> {
        let span = CommandSpan::of(&self.view.server, request, None);
        let answered = self.drive_on(request, until, None, &span).await;
        span.ended(&answered);
        answered
    }

    /// [`drive`](Self::drive), from what became of a first attempt.
    async fn drive_on(
        &self,
        request: &Request<'_>,
        until: Instant,
        mut first: Option<(Arc<Connection>, Sent)>,
        span: &CommandSpan,
    ) -> Result<Reply> {
        let slot = self.slot(request.key);
        let mut progress = Progress::default();
        let mut backoff = Backoff::up_to(Duration::from_millis(160));
        let mut ask: Option<Arc<Link>> = None;
        let mut redirects = 0;
        loop {
            let (connection, sent) = match first.take() {
                Some(first) => first,
                None => {
                    if Instant::now() >= until {
                        // Nobody may serve there any more: a frozen node says nothing of its
                        // successor.
                        self.view.doubt();
                        return Err(progress.into_timeout(self.config().op_timeout));
                    }
                    let asking = ask.is_some();
                    let Some(link) = ask.take().or_else(|| self.view.link(slot, request.key))
                    else {
                        progress.obstacle = Some(self.view.unserved(slot));
                        self.view.doubt();
                        backoff.sleep_until(self.io(), until).await;
                        continue;
                    };
                    let found = self.connection(&link, &mut progress, until).await;
                    let Some(connection) = found.map_err(Failure::into_error)? else {
                        // Before it owns a slot no map names this node: only the call keeps the
                        // link while it connects.
                        if asking && link.failure().is_none() && link.live().is_none() {
                            ask = Some(link);
                        }
                        continue;
                    };
                    let sent = connection.execute(request, asking, until).await;
                    (connection, sent)
                }
            };
            match self.settle(request, slot, &connection, sent, &mut progress, span) {
                Next::Done(result) => {
                    span.reached(&connection);
                    return result;
                }
                // While a slot changes hands, its nodes may point at each other.
                Next::Redirected => {
                    redirects += 1;
                    if redirects > 2 {
                        backoff.sleep_until(self.io(), until).await;
                    }
                }
                Next::Ask(link) => ask = Some(link),
                Next::Later => {
                    self.view.doubt();
                    backoff.sleep_until(self.io(), until).await;
                }
            }
        }
    }

    /// Decides what follows from what became of one attempt.
    fn settle(
        &self,
        request: &Request<'_>,
        slot: u16,
        connection: &Connection,
        sent: Sent,
        progress: &mut Progress,
        span: &CommandSpan,
    ) -> Next {
        let from = &connection.node.address;
        let error = match sent {
            Sent::Reply(Reply::ServerError(error)) => error,
            Sent::Reply(reply) => return Next::Done(Ok(reply)),
            unanswered => {
                return match self.unanswered(&unanswered, request.safety, from) {
                    Some(error) => Next::Done(Err(error)),
                    None => {
                        if matches!(unanswered, Sent::Lost) {
                            progress.obstacle = Some(lost(from));
                        }
                        span.again(connection, None);
                        Next::Later
                    }
                };
            }
        };
        let next = self.after_refusal(request, slot, from, &error, progress);
        match next {
            Next::Done(_) => span.refused(&error),
            _ => span.again(connection, Some(&error)),
        }
        next
    }

    /// Decides what follows from what a server has refused a request with.
    fn after_refusal(
        &self,
        request: &Request<'_>,
        slot: u16,
        from: &Address,
        error: &ErrorReply,
        progress: &mut Progress,
    ) -> Next {
        match classify(error, from) {
            Verdict::Moved(_) | Verdict::Ask(_) if !self.is_cluster() => {
                Next::Done(Err(redirected(from)))
            }
            Verdict::Moved(Some(to)) => {
                progress.obstacle = Some(describe(ErrorKind::Unavailable, error));
                match self.view.moved(slot, &to, from) {
                    Moved::Known => Next::Redirected,
                    Moved::Back => Next::Later,
                    Moved::Stranger(link) => Next::Ask(link),
                }
            }
            Verdict::Ask(Some(to)) => Next::Ask(self.view.link_to(&Node::at(&to))),
            Verdict::Later(error) => {
                progress.obstacle = Some(error);
                Next::Later
            }
            Verdict::Replica(error) => {
                progress.obstacle = Some(self.not_a_primary(slot, error));
                Next::Later
            }
            Verdict::Final(error) => Next::Done(Err(error)),
            Verdict::NoScript if matches!(request.body, Body::Script { .. }) => Next::Later,
            // It does not know the other's address; the map may.
            Verdict::Moved(None) | Verdict::Ask(None) => {
                progress.obstacle = Some(describe(ErrorKind::Unavailable, error));
                Next::Later
            }
            Verdict::NoScript => Next::Done(Err(describe(ErrorKind::Backend, error))),
        }
    }

    /// Why a request has no answer and must not be sent again. `None`: it may be.
    pub(crate) fn unanswered<T>(
        &self,
        sent: &Sent<T>,
        safety: Safety,
        from: &Address,
    ) -> Option<Error> {
        let once = safety == Safety::Once;
        let error = match sent {
            Sent::Broken(reason) => return Some(broken(from, reason).with_may_have_applied(once)),
            Sent::Expired => no_answer(self.config().op_timeout),
            Sent::Lost if once => lost(from),
            Sent::Lost | Sent::Unsent | Sent::Reply(_) => return None,
        };
        self.view.doubt();
        Some(error.with_may_have_applied(once))
    }

    fn slot(&self, key: &[u8]) -> u16 {
        if self.is_cluster() { slot_of(key) } else { 0 }
    }

    /// A server has refused a write because it is a replica now. Where no map tells who the primary
    /// is, the name may lead to it by now.
    pub(crate) fn not_a_primary(&self, slot: u16, error: Error) -> Error {
        if !self.is_cluster()
            && let Some(link) = self.view.owner(slot)
        {
            link.renew();
        }
        error.with_transient(true)
    }

    /// The connection of `link`, or `None` where the call should look for the slot's owner again.
    ///
    /// # Errors
    ///
    /// There has been no connection for so long that waiting for one would be in vain.
    pub(crate) async fn connection(
        &self,
        link: &Link,
        progress: &mut Progress,
        until: Instant,
    ) -> Result<Option<Arc<Connection>>, Failure> {
        let connection = match link.live() {
            Some(connection) => connection,
            None => {
                self.view.doubt();
                if let Some(failure) = link.lasting_failure() {
                    return Err(failure);
                }
                progress.wait_for(link.address(), self.view.obstacle(link));
                let look = until.min(Instant::now() + LOOK_AGAIN);
                match self.io().timeout_at(look, link.connection()).await {
                    Ok(connection) => connection,
                    Err(_) => {
                        progress.wait_for(link.address(), self.view.obstacle(link));
                        return Ok(None);
                    }
                }
            }
        };
        if self.is_cluster()
            && link.node().id.is_none()
            && !discovery::is_of_same_cluster(&self.view, &connection, until).await
        {
            progress.obstacle = Some(another_cluster(link.address()));
            self.view.doubt();
            self.io().sleep_until(until.min(Instant::now() + LOOK_AGAIN)).await;
            return Ok(None);
        }
        Ok(Some(connection))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.config().watcher.end();
    }
}

impl Progress {
    /// Notes what keeps the node at `address` from being used, as far as that is known.
    fn wait_for(&mut self, address: &Address, obstacle: Option<Error>) {
        let not_yet = || Error::new(ErrorKind::Timeout, format!("{address}: not connected yet"));
        self.obstacle = obstacle.or_else(|| self.obstacle.take()).or_else(|| Some(not_yet()));
    }

    pub(crate) fn into_timeout(self, at_most: Duration) -> Error {
        self.obstacle.unwrap_or_else(|| no_answer(at_most))
    }
}

pub(crate) fn no_answer(at_most: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("no answer within {at_most:?}"))
}

fn redirected(address: &Address) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("{address}: the server is a node of a cluster: set mode = \"cluster\""),
    )
}
