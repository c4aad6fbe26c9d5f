use std::io::Result;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::Cut;

/// How long a server may take for its last answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// A TCP proxy in front of a server: what a [`Harness::sever`](crate::Harness::sever) breaks
/// connections with.
///
/// It reads no protocol. It looks for bytes in what a client sends, such as a key, and cuts the
/// connection that carries them. A client that encrypts, compresses or escapes its keys needs
/// another way, and so does a server that gives a request up where its client has closed its half
/// of the connection. For [`Cut::After`] a request must come in one piece of up to 64 KiB. The proxy
/// runs on the runtime that started it.
///
/// # Examples
///
/// ```
/// use derp_kv_conformance::{BoxError, Cut, Proxy};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tokio::net::{TcpListener, TcpStream};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let server = TcpListener::bind("127.0.0.1:0").await?;
/// let proxy = Proxy::start(server.local_addr()?).await?;
/// proxy.sever(b"key:7", Cut::Before);
///
/// let mut client = TcpStream::connect(proxy.address()).await?;
/// client.write_all(b"GET key:7\r\n").await?;
/// assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0); // cut
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    armed: Arc<Armed>,
    task: JoinHandle<()>,
}

/// The bytes that are waited for, and what is done where they come.
#[derive(Debug, Default)]
struct Armed(Mutex<Vec<(Vec<u8>, Cut)>>);

impl Armed {
    /// The cut for what a client sent, if there is one.
    fn take(&self, sent: &[u8]) -> Option<Cut> {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |part: &[u8]| sent.windows(part.len()).any(|window| window == part);
        let found = armed.iter().position(|(part, _)| holds(part))?;
        Some(armed.swap_remove(found).1)
    }

    /// How much of what a client sent may be the beginning of what is waited for.
    fn longest(&self) -> usize {
        let armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        armed.iter().map(|(part, _)| part.len()).max().unwrap_or(0)
    }
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes everything to `upstream`.
    ///
    /// # Errors
    ///
    /// Where no port is free.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let armed = Arc::<Armed>::default();
        let task = tokio::spawn(serve(listener, upstream, armed.clone()));
        Ok(Self { address, armed, task })
    }

    /// Where a client reaches the server through it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the next connection over which a client sends `part`, which is not empty, once.
    pub fn sever(&self, part: &[u8], cut: Cut) {
        if !part.is_empty() {
            let mut armed = self.armed.0.lock().unwrap_or_else(PoisonError::into_inner);
            armed.push((part.to_vec(), cut));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections are in the task's set and end with it.
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, upstream: SocketAddr, armed: Arc<Armed>) {
    let mut relays = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                relays.spawn(relay(client, upstream, armed.clone()));
            },
            Some(_) = relays.join_next() => {}
        }
    }
}

/// Carries one connection until either side ends it, or a cut does. Dropping both sockets is the cut.
async fn relay(mut client: TcpStream, upstream: SocketAddr, armed: Arc<Armed>) -> Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        // Both at once: who writes much and reads nothing meanwhile would else wait for ever.
        tokio::select! {
            cut = requests(from_client, to_server, &armed) => cut?,
            ended = answers(from_server, to_client) => return ended,
        }
    };
    if cut == Some(Cut::After) { exhaust(server).await } else { Ok(()) }
}

/// Passes on what the client sends, until what a cut waits for has been passed on, or would be.
async fn requests(
    mut client: ReadHalf<'_>,
    mut server: WriteHalf<'_>,
    armed: &Armed,
) -> Result<Option<Cut>> {
    let mut bytes = vec![0; 64 * 1024];
    // The end of what was sent before, in which the bytes that are waited for may begin.
    let mut recent = Vec::new();
    loop {
        let read = client.read(&mut bytes).await?;
        if read == 0 {
            return Ok(None);
        }
        recent.extend_from_slice(&bytes[..read]);
        let cut = armed.take(&recent);
        if cut != Some(Cut::Before) {
            server.write_all(&bytes[..read]).await?;
        }
        if cut.is_some() {
            return Ok(cut);
        }
        recent.drain(..recent.len() - armed.longest().saturating_sub(1).min(recent.len()));
    }
}

async fn answers(mut server: ReadHalf<'_>, mut client: WriteHalf<'_>) -> Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = server.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        client.write_all(&bytes[..read]).await?;
    }
}

/// Servers of databases execute what they were sent before they see its end: once their own end
/// comes back, the request has been executed.
async fn exhaust(mut server: TcpStream) -> Result<()> {
    server.shutdown().await?;
    let mut answers = Vec::new();
    let _ = timeout(PATIENCE, server.read_to_end(&mut answers)).await;
    Ok(())
}
