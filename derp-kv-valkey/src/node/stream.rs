//! The bytes of one connection, counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

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

enum Transport<T> {
    Plain(BufReader<T>),
    Tls(Box<TlsStream<T>>),
}

/// A connected stream that keeps its [`Meter`].
pub(crate) struct Stream<T = TcpStream> {
    transport: Transport<T>,
    meter: Arc<Meter>,
    pace: Pace,
}

impl<T: AsyncRead> Stream<T> {
    pub(crate) fn plain(socket: T, meter: Arc<Meter>) -> Self {
        let transport = Transport::Plain(BufReader::with_capacity(READ_AHEAD, socket));
        Self { transport, meter, pace: Pace::default() }
    }

    pub(crate) fn tls(session: TlsStream<T>, meter: Arc<Meter>) -> Self {
        Self { transport: Transport::Tls(Box::new(session)), meter, pace: Pace::default() }
    }
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

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<T> {
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

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<T> {
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
            Err(_) => {
                // TLS sends record by record: the first may have left before another failed.
                if matches!(self.transport, Transport::Tls(_)) {
                    self.meter.written.fetch_add(1, Ordering::Release);
                }
                self.meter.set_broken();
            }
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pace.batch = None;
        // What TLS still holds was counted when it was taken.
        let flushed = ready!(match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        });
        if flushed.is_err() {
            self.meter.set_broken();
        }
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(all(test, feature = "test-server"))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// A socket that fails after so many more writes.
    struct Failing(DuplexStream, Arc<AtomicUsize>);

    impl AsyncRead for Failing {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Failing {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let left = self.1.load(Ordering::Relaxed);
            if left == 0 {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            self.1.store(left - 1, Ordering::Relaxed);
            Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Both ends of a TLS session that is through with its handshake.
    async fn session(
        left: &Arc<AtomicUsize>,
    ) -> (TlsStream<Failing>, tokio_rustls::server::TlsStream<DuplexStream>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let (near, far) = duplex(1 << 20);
        let near = Failing(near, Arc::clone(left));
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let (near, far) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        (near.unwrap(), far.unwrap())
    }

    #[tokio::test]
    async fn a_write_that_fails_over_tls_may_have_left_in_part() {
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let (near, _far) = session(&left).await;
        let meter = Arc::new(Meter::default());
        let mut stream = Stream::tls(near, Arc::clone(&meter));
        // Three records, of which one leaves.
        left.store(1, Ordering::Relaxed);
        stream.write(&[b'x'; 40 * 1024]).await.unwrap_err();
        assert!(meter.is_broken());
        assert_ne!(meter.written(), 0, "a request that has left in part is not unsent");
    }
}
