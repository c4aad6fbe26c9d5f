use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::faults::{Fault, Faults, Traffic};
use super::ports::free_port;
use super::relay::relay;
use super::{Error, Result};

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
    faults: Arc<Faults>,
    task: JoinHandle<()>,
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
        let faults = Arc::new(Faults::default());
        let task = tokio::spawn(serve(listener, port, upstream, Arc::clone(&faults)));
        Ok(Self { port, faults, task })
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
        self.faults.mode.send_replace(mode);
    }

    /// Cuts every connection of now.
    pub fn cut_all(&self) {
        self.faults.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets `fault` happen, once, to the next request that holds `needle` (a part of its key, say).
    /// Plain text only: the proxy cannot read TLS.
    #[must_use]
    pub fn arm(&self, needle: impl AsRef<[u8]>, fault: Fault) -> Armed {
        Armed(self.faults.arm(needle.as_ref(), fault))
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        *self.faults.connections.borrow()
    }

    /// How many requests came so far (with TLS: pieces), those of the handshake among them.
    #[must_use]
    pub fn requests(&self) -> u64 {
        *self.faults.requests.borrow()
    }

    /// Returns once `count` requests have come in all.
    pub async fn wait_for_requests(&self, count: u64) {
        // The sender lives in `self`: no error is possible.
        let _ = self.faults.requests.subscribe().wait_for(|seen| *seen >= count).await;
    }

    /// Returns once `count` connections have been accepted in all.
    pub async fn wait_for_connections(&self, count: u64) {
        let _ = self.faults.connections.subscribe().wait_for(|seen| *seen >= count).await;
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

async fn serve(first: TcpListener, port: u16, upstream: u16, faults: Arc<Faults>) {
    let mut mode = faults.mode.subscribe();
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
                faults.connections.send_modify(|count| *count += 1);
                relays.spawn(relay(client, upstream, Arc::clone(&faults)));
            },
            Some(_) = relays.join_next() => {}
        }
    }
}
