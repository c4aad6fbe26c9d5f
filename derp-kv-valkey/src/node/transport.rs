//! The byte stream under a connection.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, Interest};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_rustls::client::TlsStream;

use crate::node::dial::Socket;

/// A connected stream, read and written by one task; others may write to it directly.
#[derive(Debug)]
pub(super) enum Transport {
    Tcp(Arc<TcpStream>),
    #[cfg(unix)]
    Unix(Arc<UnixStream>),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The writing side of a stream that any thread may write to.
#[derive(Debug)]
pub(super) enum Direct {
    Tcp(Arc<TcpStream>),
    #[cfg(unix)]
    Unix(Arc<UnixStream>),
}

impl Direct {
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            #[cfg(unix)]
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }
}

/// Reads once. A read that does not fill the buffer has emptied the socket: not asking a second
/// time saves a system call for each batch of answers.
macro_rules! read {
    ($stream:ident, $cx:ident, $buffer:ident) => {
        loop {
            ready!($stream.poll_read_ready($cx))?;
            let room = $buffer.capacity() - $buffer.len();
            match $stream.try_read_buf($buffer) {
                Ok(count) => {
                    if cfg!(unix) && count < room {
                        // Tokio forgets that the socket was readable. What has come since then
                        // is reported anew: this runs on the thread that hears of it.
                        let empty = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                        let _ = $stream.try_io(Interest::READABLE, empty);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    };
}

macro_rules! write {
    ($stream:ident, $cx:ident, $bytes:ident) => {
        loop {
            ready!($stream.poll_write_ready($cx))?;
            match $stream.try_write($bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    };
}

impl Transport {
    pub(super) fn new(socket: Socket) -> Self {
        match socket {
            Socket::Tcp(stream) => Self::Tcp(Arc::new(stream)),
            #[cfg(unix)]
            Socket::Unix(stream) => Self::Unix(Arc::new(stream)),
            Socket::Tls(stream) => Self::Tls(stream),
        }
    }

    /// `None` where only one task may write, because bytes are encrypted in order.
    pub(super) fn direct(&self) -> Option<Direct> {
        match self {
            Self::Tcp(stream) => Some(Direct::Tcp(Arc::clone(stream))),
            #[cfg(unix)]
            Self::Unix(stream) => Some(Direct::Unix(Arc::clone(stream))),
            Self::Tls(_) => None,
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Appends to `buffer` what has come; 0 bytes are the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => read!(stream, cx, buffer),
            #[cfg(unix)]
            Self::Unix(stream) => read!(stream, cx, buffer),
            Self::Tls(stream) => pin!(stream.read_buf(buffer)).poll(cx),
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => write!(stream, cx, bytes),
            #[cfg(unix)]
            Self::Unix(stream) => write!(stream, cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Sends what TLS has encrypted and still holds.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}
