use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::ports::free_port;
use super::relay::relay;
use super::{Error, Result};

/// What the [`Proxy`] does with connections.
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

/// What happens to the one connection whose request was waited for, see [`Proxy::arm`].
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

/// A fault that waits for its request.
#[derive(Debug)]
pub struct Armed(oneshot::Receiver<()>);

impl Armed {
    /// Returns once the fault has happened: the server has executed the request (or will never
    /// see it) and the connection is cut or holed.
    ///
    /// # Errors
    ///
    /// When the proxy was dropped before.
    pub async fn fired(self) -> Result<()> {
        self.0.await.map_err(|_| Error::new("the proxy is gone, its fault did not happen"))
    }
}

/// A TCP proxy inside the test process, in front of a server.
///
/// # Examples
///
/// ```
/// use derp_kv_valkey::test_server::{Fault, Proxy, Server};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::start().await?;
/// let proxy = Proxy::start(server.port()).await?;
/// // Connect the store under test to `proxy.address()`; then:
/// let armed = proxy.arm("counter:7", Fault::CutAfter);
/// // The next request that names `counter:7` is executed, and its answer is lost.
/// # drop(armed);
/// assert_eq!(proxy.connections(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) mode: watch::Sender<Traffic>,
    /// Grows with every [`Proxy::cut_all`].
    pub(super) cuts: watch::Sender<u64>,
    pub(super) requests: watch::Sender<u64>,
    connections: watch::Sender<u64>,
    armed: Mutex<Vec<Waiting>>,
}

#[derive(Debug)]
pub(super) struct Waiting {
    needle: Vec<u8>,
    pub(super) fault: Fault,
    pub(super) done: oneshot::Sender<()>,
}

impl Shared {
    fn armed(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Proxy {
    /// Listens on a free loopback port and passes everything to `upstream` on 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub async fn start(upstream: u16) -> Result<Self> {
        let mut port = free_port()?;
        let mut bound = bind(port).await;
        for _ in 0..20 {
            if bound.is_ok() {
                break;
            }
            port = free_port()?;
            bound = bind(port).await;
        }
        let listener = bound.map_err(|error| Error::io("the proxy cannot listen", error))?;
        let shared = Arc::new(Shared {
            mode: watch::Sender::new(Traffic::Pass),
            cuts: watch::Sender::new(0),
            requests: watch::Sender::new(0),
            connections: watch::Sender::new(0),
            armed: Mutex::default(),
        });
        let task = tokio::spawn(serve(listener, port, upstream, Arc::clone(&shared)));
        Ok(Self { port, shared, task })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> (String, u16) {
        ("127.0.0.1".to_owned(), self.port)
    }

    /// Changes what happens from now on.
    pub fn set(&self, mode: Traffic) {
        self.shared.mode.send_replace(mode);
    }

    /// Cuts every connection of now.
    pub fn cut_all(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets `fault` happen, once, to the next request that holds `needle` (a part of its key, say).
    /// Plain text only: the proxy cannot read TLS.
    #[must_use]
    pub fn arm(&self, needle: impl AsRef<[u8]>, fault: Fault) -> Armed {
        let (done, fired) = oneshot::channel();
        self.shared.armed().push(Waiting { needle: needle.as_ref().to_vec(), fault, done });
        Armed(fired)
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        *self.shared.connections.borrow()
    }

    /// How many requests came so far (with TLS: pieces), those of the handshake among them.
    #[must_use]
    pub fn requests(&self) -> u64 {
        *self.shared.requests.borrow()
    }

    /// Returns once `count` requests have come in all.
    pub async fn wait_for_requests(&self, count: u64) {
        // The sender lives in `self`: no error is possible.
        let _ = self.shared.requests.subscribe().wait_for(|seen| *seen >= count).await;
    }

    /// Returns once `count` connections have been accepted in all.
    pub async fn wait_for_connections(&self, count: u64) {
        let _ = self.shared.connections.subscribe().wait_for(|seen| *seen >= count).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections are in the task's `JoinSet` and end with it.
        self.task.abort();
    }
}

async fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

async fn serve(first: TcpListener, port: u16, upstream: u16, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    let mut listener = Some(first);
    let mut relays = JoinSet::new();
    loop {
        if *mode.borrow_and_update() == Traffic::Refuse {
            // Only a closed port refuses.
            listener = None;
        } else if listener.is_none() {
            listener = bind(port).await.ok();
        }
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            accepted = accept => if let Ok((client, _)) = accepted {
                shared.connections.send_modify(|count| *count += 1);
                relays.spawn(relay(client, upstream, Arc::clone(&shared)));
            },
            Some(_) = relays.join_next() => {}
        }
    }
}
