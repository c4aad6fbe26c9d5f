//! The sockets that lead to a server: where they go, how they are set up, TLS.

use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::Address;
use crate::config::ValkeyConfig;
use crate::node::failure::Failure;
use crate::node::resolve::resolve;
use crate::node::tls;

/// A connected socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One of the places where a server may be.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Endpoint {
    /// Where `address` leads, in the order in which it is to be tried.
    pub(crate) async fn all(address: &Address) -> Result<Vec<Self>, Failure> {
        #[cfg(unix)]
        if let Some(path) = address.unix_path() {
            return Ok(vec![Self::Unix(path.to_owned())]);
        }
        let found = resolve(address.host(), address.port())
            .await
            .map_err(|error| Failure::io(address, "cannot resolve the host name", error))?;
        if found.is_empty() {
            return Err(Failure::unavailable(address, "the host name has no address"));
        }
        Ok(found.into_iter().map(Self::Tcp).collect())
    }

    /// Connects, without TLS so far.
    pub(crate) async fn connect(
        &self,
        address: &Address,
        config: &ValkeyConfig,
    ) -> Result<Socket, Failure> {
        let connected = match self {
            Self::Tcp(to) => TcpStream::connect(to).await.map(Socket::Tcp),
            #[cfg(unix)]
            Self::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        };
        let socket = connected.map_err(|error| Failure::io(address, "cannot connect", error))?;
        if let Socket::Tcp(stream) = &socket {
            set_options(stream, config)
                .map_err(|error| Failure::io(address, "cannot set the socket's options", error))?;
        }
        Ok(socket)
    }
}

impl Socket {
    /// Who is at the other end; that of a Unix socket has no address.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            #[cfg(unix)]
            Self::Unix(_) => None,
            Self::Tls(stream) => stream.get_ref().0.peer_addr().ok(),
        }
    }

    /// Begins TLS where it is configured. A Unix socket needs none.
    pub(crate) async fn secure(
        self,
        address: &Address,
        config: &Arc<ValkeyConfig>,
    ) -> Result<Self, Failure> {
        match self {
            Self::Tcp(stream) if config.use_tls => {
                Ok(Self::Tls(Box::new(connect_tls(address, config, stream).await?)))
            }
            plain => Ok(plain),
        }
    }
}

/// Small requests leave at once, and a peer that vanished is noticed, also on an idle connection.
fn set_options(stream: &TcpStream, config: &ValkeyConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // What a replaced connection has not delivered is dropped: a late write would undo a newer one.
    stream.set_zero_linger()?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(1));
    #[cfg(not(any(target_os = "openbsd", target_os = "redox", target_os = "solaris")))]
    let keepalive = keepalive.with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(Some(config.op_timeout.max(Duration::from_secs(1))))?;
    #[cfg(not(any(target_os = "android", target_os = "fuchsia", target_os = "linux")))]
    let _ = config;
    Ok(())
}

async fn connect_tls(
    address: &Address,
    config: &Arc<ValkeyConfig>,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, Failure> {
    // The files are read off the I/O thread.
    let loaded = Arc::clone(config);
    let tls = tokio::task::spawn_blocking(move || tls::client_config(&loaded))
        .await
        .map_err(|_| Failure::unavailable(address, "the runtime is shutting down"))?
        .map_err(|error| Failure::config(address, &error))?;
    let name = tls::server_name(address, config)?;
    TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| tls::failure(address, error))
}

macro_rules! each {
    ($socket:ident.$method:ident($($argument:ident),*)) => {
        match $socket.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Self::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.poll_shutdown(cx))
    }
}
