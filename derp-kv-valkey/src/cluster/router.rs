//! One call from its key to its answer.

mod shared;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, Result};
use redis::Value;
use tokio::time::timeout;

use crate::address::Address;
use crate::cluster::discovery;
use crate::cluster::slots::slot_of;
use crate::config::{Mode, ValkeyConfig};
use crate::io::backoff::Backoff;
use crate::io::task::Task;
use crate::node::link::{Link, wire_within};
use crate::node::wire::{Sent, Wire};
use crate::protocol::reply::{self, Verdict, classify};
use crate::protocol::request::{Body, Request, Safety};
pub(crate) use shared::Shared;

/// How long a call waits for a node's connection before it looks whether the slot has moved.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Finds the node of each key and drives a call to its end.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) shared: Arc<Shared>,
    _refresher: Option<Task>,
}

/// What follows one attempt.
enum Next {
    Done(Result<Value>),
    /// To where the slot is said to be now.
    Redirected,
    /// Once to this node, whoever owns the slot.
    Ask(Arc<Link>),
    /// After a pause.
    Later,
}

/// How far a call has come, for when its deadline passes.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// A write is on its way: the server may execute it.
    pub(crate) in_doubt: bool,
    /// What it has been waiting for.
    pub(crate) obstacle: Option<Error>,
}

impl Router {
    /// Connects, and fails at once where the servers cannot be used.
    pub(crate) async fn connect(config: ValkeyConfig) -> Result<Self> {
        config.check()?;
        let config = Arc::new(config);
        let topology = discovery::connect(&config).await?;
        let shared = Arc::new(Shared::new(config, topology));
        let refresher = (shared.config.mode == Mode::Cluster)
            .then(|| Task::spawn(discovery::keep_fresh(Arc::clone(&shared))));
        Ok(Self { shared, _refresher: refresher })
    }

    pub(crate) fn config(&self) -> &ValkeyConfig {
        &self.shared.config
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.shared.config.mode == Mode::Cluster
    }

    /// Runs one request to its answer, which `read` understands, or to the deadline.
    pub(crate) async fn call<T>(
        &self,
        request: &Request<'_>,
        read: impl FnOnce(Value) -> Result<T>,
    ) -> Result<T> {
        let mut progress = Progress::default();
        let at_most = self.config().op_timeout;
        let answered = {
            let attempt = pin!(self.attempt(request, &mut progress));
            timeout(at_most, attempt).await
        };
        match answered {
            // The server has answered a write: whatever it meant, it may have done it.
            Ok(result) => result.and_then(|reply| {
                let once = request.safety == Safety::Once;
                read(reply).map_err(|error| error.with_may_have_applied(once))
            }),
            Err(_) => {
                // Nobody may serve there any more: a frozen node says nothing of its successor.
                self.shared.doubt();
                Err(progress.into_timeout(at_most))
            }
        }
        .map_err(|error| error.with_operation(request.operation))
    }

    /// The straight way, which nearly every call takes: a healthy connection, a permit and an
    /// answer. Whatever else happens is boxed, so that this stays small and fast.
    async fn attempt(&self, request: &Request<'_>, progress: &mut Progress) -> Result<Value> {
        if let Some(wire) = self.shared.live(self.slot(request.key))
            && let Some(permit) = wire.permit().await
        {
            progress.in_doubt = request.safety == Safety::Once;
            let sent = wire.execute(request, false).await;
            progress.in_doubt = false;
            drop(permit);
            return match sent {
                Sent::Reply(value) if !matches!(value, Value::ServerError(_)) => Ok(value),
                sent => {
                    Box::pin(self.drive_on(request, progress, Some((Arc::clone(&wire), sent))))
                        .await
                }
            };
        }
        Box::pin(self.drive(request, progress)).await
    }

    /// Runs one request to its answer, however long that takes.
    pub(crate) async fn drive(
        &self,
        request: &Request<'_>,
        progress: &mut Progress,
    ) -> Result<Value> {
        self.drive_on(request, progress, None).await
    }

    /// [`drive`](Self::drive), from what became of a first attempt.
    async fn drive_on(
        &self,
        request: &Request<'_>,
        progress: &mut Progress,
        mut first: Option<(Arc<Wire>, Sent)>,
    ) -> Result<Value> {
        let slot = self.slot(request.key);
        let mut backoff = Backoff::up_to(Duration::from_millis(160));
        let mut ask: Option<Arc<Link>> = None;
        let mut redirects = 0;
        loop {
            let (wire, sent) = match first.take() {
                Some(first) => first,
                None => {
                    let asking = ask.is_some();
                    let Some(link) = ask.take().or_else(|| self.shared.owner(slot)) else {
                        progress.obstacle = Some(unserved(slot));
                        self.shared.doubt();
                        backoff.sleep().await;
                        continue;
                    };
                    let Some(wire) = self.wire(&link, progress).await else {
                        // Before it owns a slot no map names this node: only the call keeps the
                        // link while it connects.
                        if asking && link.failure().is_none() {
                            ask = Some(link);
                        }
                        continue;
                    };
                    let Some(permit) = wire.permit().await else { continue };
                    progress.in_doubt = request.safety == Safety::Once;
                    let sent = wire.execute(request, asking).await;
                    progress.in_doubt = false;
                    drop(permit);
                    (wire, sent)
                }
            };
            match self.settle(request, slot, &wire.address, sent, progress) {
                Next::Done(result) => return result,
                // While a slot changes hands, its nodes may point at each other.
                Next::Redirected => {
                    redirects += 1;
                    if redirects > 2 {
                        backoff.sleep().await;
                    }
                }
                Next::Ask(link) => ask = Some(link),
                Next::Later => {
                    self.shared.doubt();
                    backoff.sleep().await;
                }
            }
        }
    }

    /// Decides what follows from what became of one attempt.
    fn settle(
        &self,
        request: &Request<'_>,
        slot: u16,
        from: &Address,
        sent: Sent,
        progress: &mut Progress,
    ) -> Next {
        let error = match sent {
            Sent::Reply(Value::ServerError(error)) => error,
            Sent::Reply(value) => return Next::Done(Ok(value)),
            Sent::Unsent => return Next::Later,
            Sent::Lost if request.safety == Safety::Once => {
                self.shared.doubt();
                return Next::Done(Err(lost(from).with_may_have_applied(true)));
            }
            Sent::Lost => {
                progress.obstacle = Some(lost(from));
                return Next::Later;
            }
        };
        match classify(&error, from) {
            Verdict::Moved(_) | Verdict::Ask(_) if !self.is_cluster() => {
                Next::Done(Err(redirected(from)))
            }
            // A redirect back to where it came from: the nodes do not agree yet.
            Verdict::Moved(Some(to)) if self.shared.moved(slot, &to, from) => Next::Later,
            Verdict::Moved(Some(_)) => Next::Redirected,
            Verdict::Ask(Some(to)) => Next::Ask(self.shared.link_to(&to)),
            Verdict::Later(error) => {
                progress.obstacle = Some(error);
                Next::Later
            }
            Verdict::Replica(error) if self.is_cluster() => {
                progress.obstacle = Some(error);
                Next::Later
            }
            Verdict::Replica(error) => {
                // The name may lead to the new primary by now.
                if let Some(link) = self.shared.owner(slot) {
                    link.renew();
                }
                Next::Done(Err(error))
            }
            Verdict::Final(error) => Next::Done(Err(error)),
            Verdict::NoScript if matches!(request.body, Body::Script { .. }) => Next::Later,
            Verdict::Moved(None) | Verdict::Ask(None) | Verdict::NoScript => {
                Next::Done(Err(reply::unexpected()))
            }
        }
    }

    fn slot(&self, key: &[u8]) -> u16 {
        if self.is_cluster() { slot_of(key) } else { 0 }
    }

    /// The connection of `link`, or `None` where the call should look for the slot's owner again.
    pub(crate) async fn wire(&self, link: &Link, progress: &mut Progress) -> Option<Arc<Wire>> {
        if let Some(wire) = link.live() {
            return Some(wire);
        }
        progress.obstacle = link.failure().map(crate::node::failure::Failure::into_error);
        self.shared.doubt();
        wire_within(link, LOOK_AGAIN).await
    }
}

impl Progress {
    pub(crate) fn into_timeout(self, at_most: Duration) -> Error {
        if self.in_doubt {
            return no_answer(at_most).with_may_have_applied(true);
        }
        self.obstacle.unwrap_or_else(|| no_answer(at_most))
    }
}

pub(crate) fn unserved(slot: u16) -> Error {
    Error::new(ErrorKind::Unavailable, format!("no node of the cluster serves slot {slot}"))
}

fn no_answer(at_most: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("no answer within {at_most:?}"))
}

pub(crate) fn lost(address: &Address) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("{address}: the connection ended before the answer came"),
    )
}

fn redirected(address: &Address) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("{address}: the server is a node of a cluster: set mode = \"cluster\""),
    )
}
