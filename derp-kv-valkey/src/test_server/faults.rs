use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

/// What the [`Proxy`](super::Proxy) does with connections.
///
/// A hole is for good: a connection that was once in one never carries another byte, whatever the
/// mode becomes, as no network ever loses a part of a stream and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Traffic {
    /// Everything passes.
    Pass,
    /// Each piece of an answer comes this much later.
    Delay(Duration),
    /// Requests and answers are swallowed, on the connections of now and on new ones.
    HoleBoth,
    /// Requests arrive and are executed, answers are swallowed.
    HoleReplies,
    /// New connections are refused; those of now pass.
    Refuse,
}

/// What happens to the one connection whose request was waited for, see [`Proxy::arm`](super::Proxy::arm).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The connection is cut, and the server never sees the request.
    CutBefore,
    /// The server executes the request, then the connection is cut without an answer.
    CutAfter,
    /// The server executes the request, half of its answer passes, then the connection is cut.
    CutReply,
    /// The server executes the request; no answer ever comes, and the connection stays open.
    HoleReply,
}

/// What a proxy and its connections share.
#[derive(Debug)]
pub(super) struct Faults {
    pub(super) mode: watch::Sender<Traffic>,
    /// Grows with every [`Proxy::cut_all`](super::Proxy::cut_all).
    pub(super) cuts: watch::Sender<u64>,
    pub(super) requests: watch::Sender<u64>,
    pub(super) connections: watch::Sender<u64>,
    armed: Mutex<Vec<Waiting>>,
}

/// A fault that waits for its request.
#[derive(Debug)]
pub(super) struct Waiting {
    needle: Vec<u8>,
    pub(super) fault: Fault,
    pub(super) done: oneshot::Sender<()>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            mode: watch::Sender::new(Traffic::Pass),
            cuts: watch::Sender::new(0),
            requests: watch::Sender::new(0),
            connections: watch::Sender::new(0),
            armed: Mutex::default(),
        }
    }
}

impl Faults {
    fn armed(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a fault wait for a request that holds `needle`. The receiver hears when it has happened.
    pub(super) fn arm(&self, needle: &[u8], fault: Fault) -> oneshot::Receiver<()> {
        let (done, fired) = oneshot::channel();
        self.armed().push(Waiting { needle: needle.to_vec(), fault, done });
        fired
    }

    /// The fault that waited for this request, if any did.
    pub(super) fn take_fault(&self, request: &[u8]) -> Option<Waiting> {
        let mut armed = self.armed();
        let found = armed.iter().position(|waiting| {
            request.windows(waiting.needle.len()).any(|part| part == waiting.needle)
        })?;
        Some(armed.remove(found))
    }
}
