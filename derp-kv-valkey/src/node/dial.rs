//! Opening one connection: name, TCP, TLS, login.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_ok;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::Address;
use crate::config::ValkeyConfig;
use crate::node::failure::Failure;
use crate::node::stream::{Meter, Stream};
use crate::node::tls;

/// Connects to `address`. The caller bounds the time.
pub(crate) async fn dial(
    address: &Address,
    config: &Arc<ValkeyConfig>,
    meter: Arc<Meter>,
) -> Result<Stream, Failure> {
    let tcp = connect_tcp(address, config).await?;
    Ok(if config.use_tls {
        Stream::tls(connect_tls(address, config, tcp).await?, meter)
    } else {
        Stream::plain(tcp, meter)
    })
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
