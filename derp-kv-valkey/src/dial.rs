//! Opening one connection: name, TCP, TLS, login.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::select_ok;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::Address;
use crate::config::ValkeyConfig;
use crate::failure::Failure;
use crate::tls;

/// Counts the bytes of one connection.
///
/// The counts prove two things that no reply tells: that a request cannot have left (nothing was
/// written since it was handed over), and that a connection which owes an answer does not speak.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    read: AtomicU64,
    written: AtomicU64,
    broken: AtomicBool,
}

impl Meter {
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(crate) fn total(&self) -> u64 {
        self.read.load(Ordering::Relaxed).wrapping_add(self.written.load(Ordering::Relaxed))
    }

    /// Whether the stream has ended or failed: set before anybody is told.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    pub(crate) fn set_broken(&self) {
        self.broken.store(true, Ordering::Release);
    }
}

/// Read at once from a plain socket, in bytes. The decoder itself asks for 8 KiB at a time, which
/// is two replies of 4 KiB: most of what a system call costs is then paid again for each of them.
const READ_AHEAD: usize = 64 * 1024;

enum Transport {
    Plain(BufReader<TcpStream>),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connected stream that keeps its [`Meter`].
pub(crate) struct Stream {
    transport: Transport,
    meter: Arc<Meter>,
    pace: Pace,
}

/// Decides whether a batch of requests lets the other ready tasks run before it is written: they
/// add their requests, and one system call writes them all. A lone caller gains nothing and would
/// pay for the detour.
#[derive(Default)]
struct Pace {
    /// The batch has had its chance, at this length.
    batch: Option<usize>,
    /// Batches in a row that did not grow by waiting.
    in_vain: u8,
    /// So many batches are written at once, after several in vain.
    at_once: u8,
}

impl Pace {
    fn waits(&mut self, length: usize) -> bool {
        if let Some(before) = self.batch {
            if length > before {
                self.in_vain = 0;
            } else if before != usize::MAX {
                self.in_vain = self.in_vain.saturating_add(1);
                self.at_once = if self.in_vain > 3 { 15 } else { 0 };
            }
            self.batch = Some(usize::MAX);
            return false;
        }
        if self.at_once > 0 {
            self.at_once -= 1;
            self.batch = Some(usize::MAX);
            return false;
        }
        self.batch = Some(length);
        true
    }
}

/// Connects to `address`. The caller bounds the time.
pub(crate) async fn dial(
    address: &Address,
    config: &Arc<ValkeyConfig>,
    meter: Arc<Meter>,
) -> Result<Stream, Failure> {
    let tcp = connect_tcp(address, config).await?;
    let transport = if config.use_tls {
        Transport::Tls(Box::new(connect_tls(address, config, tcp).await?))
    } else {
        Transport::Plain(BufReader::with_capacity(READ_AHEAD, tcp))
    };
    Ok(Stream { transport, meter, pace: Pace::default() })
}

async fn connect_tcp(address: &Address, config: &ValkeyConfig) -> Result<TcpStream, Failure> {
    let found = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|error| Failure::io(address, "cannot resolve the host name", error))?;
    // All at once: a name may have an address of a family that leads nowhere.
    let attempts: Vec<_> = found.map(|address| Box::pin(TcpStream::connect(address))).collect();
    if attempts.is_empty() {
        return Err(Failure::unavailable(address, "the host name has no address"));
    }
    let (stream, _) =
        select_ok(attempts).await.map_err(|error| Failure::io(address, "cannot connect", error))?;
    set_options(&stream, config)
        .map_err(|error| Failure::io(address, "cannot set the socket's options", error))?;
    Ok(stream)
}

/// Small requests leave at once, and a peer that vanished is noticed, also on an idle connection.
fn set_options(stream: &TcpStream, config: &ValkeyConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(1));
    #[cfg(not(any(target_os = "openbsd", target_os = "redox", target_os = "solaris")))]
    let keepalive = keepalive.with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(Some(
        config.op_timeout.clamp(Duration::from_secs(1), Duration::from_secs(30)),
    ))?;
    #[cfg(not(any(target_os = "android", target_os = "fuchsia", target_os = "linux")))]
    let _ = config;
    Ok(())
}

async fn connect_tls(
    address: &Address,
    config: &Arc<ValkeyConfig>,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, Failure> {
    // Read anew each time, off the runtime's threads: a renewed file needs no restart.
    let loaded = Arc::clone(config);
    let tls = tokio::task::spawn_blocking(move || tls::client_config(&loaded))
        .await
        .map_err(|_| Failure::unavailable(address, "the runtime is shutting down"))?
        .map_err(|error| Failure::config(address, &error))?;
    let name = ServerName::try_from(address.host.clone())
        .map_err(|_| Failure::tls(address, "the host is no name that a certificate can hold"))?;
    TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| {
        Failure::io(address, "the TLS handshake failed (is it a TLS port?)", error)
    })
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        });
        let count = buf.filled().len() - before;
        if count == 0 {
            self.meter.set_broken();
        }
        self.meter.read.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.pace.waits(buf.len()) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let written = ready!(match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        });
        match &written {
            Ok(count) => {
                self.meter.written.fetch_add(*count as u64, Ordering::Release);
            }
            Err(_) => self.meter.set_broken(),
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pace.batch = None;
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
