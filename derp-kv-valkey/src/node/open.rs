//! Opening a connection: which of a name's addresses, and the first words there.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::ErrorKind;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::address::Address;
use crate::config::{Mode, ValkeyConfig};
use crate::node::dial::{Endpoint, Socket};
use crate::node::failure::Failure;
use crate::node::hello::{self, Greeting, Hello};
use crate::protocol::decode::Decoder;
use crate::protocol::encode::encode;
use crate::protocol::reply::Reply;

/// How long an address has to itself before the next one is dialled as well: the "connection
/// attempt delay" of RFC 8305.
const HEAD_START: Duration = Duration::from_millis(250);

/// Longer than any greeting.
const LONGEST_GREETING: usize = 64 * 1024;

/// Connects to `address`, logs in and checks that the server is of the configured kind, all within
/// the connection time-out. `finish` makes a connection of it, and may refuse the server as well.
///
/// Where the name has several addresses, they are tried in the resolver's order, so that the same
/// one is chosen as long as it works. The next one follows where an address fails at any step, or
/// is slow.
pub(crate) async fn open<T: Send, F: Future<Output = Result<T, Failure>> + Send>(
    address: &Address,
    config: &Arc<ValkeyConfig>,
    finish: impl Fn(Socket, Hello) -> F + Send + Sync,
) -> Result<T, Failure> {
    let until = Instant::now() + config.connect_timeout;
    let endpoints = timeout_at(until, Endpoint::all(address))
        .await
        .map_err(|_| late(address, config, "the name server does not answer"))??;
    let mut seen = Seen::default();
    let opened = attempts(endpoints, address, config, until, &mut seen, finish);
    if let Ok(Some(opened)) = timeout_at(until, opened).await {
        return Ok(opened);
    }
    let why = match (seen.accepted, config.use_tls) {
        (false, _) => "the host does not answer",
        (true, false) => "the server takes the connection and says nothing",
        (true, true) => "the server takes the connection and says nothing (is it a TLS port?)",
    };
    let late = late(address, config, why);
    Err(match seen.worst {
        Some(worst) if seen.pending == 0 || worst.tells_more_than(&late) => worst,
        _ => late,
    })
}

fn late(address: &Address, config: &ValkeyConfig, why: &str) -> Failure {
    let message = format!("no connection within {:?}: {why}", config.connect_timeout);
    Failure::new(ErrorKind::Timeout, address, message)
}

/// What has come of the attempts so far.
#[derive(Default)]
struct Seen {
    worst: Option<Failure>,
    pending: usize,
    accepted: bool,
}

impl Seen {
    fn failed(&mut self, failure: Failure, endpoint: &Endpoint, address: &Address) {
        self.pending -= 1;
        let failure = match endpoint {
            Endpoint::Tcp(to) if address.host().parse::<IpAddr>().is_err() => failure.at(to.ip()),
            _ => failure,
        };
        if self.worst.as_ref().is_none_or(|worst| failure.tells_more_than(worst)) {
            self.worst = Some(failure);
        }
    }
}

/// Tries one endpoint after the other until one has led to a connection. `None`: none has.
async fn attempts<T: Send, F: Future<Output = Result<T, Failure>> + Send>(
    endpoints: Vec<Endpoint>,
    address: &Address,
    config: &Arc<ValkeyConfig>,
    until: Instant,
    seen: &mut Seen,
    finish: impl Fn(Socket, Hello) -> F + Send + Sync,
) -> Option<T> {
    let opening = async |socket: Socket| {
        let mut socket = socket.secure(address, config).await?;
        let hello = greet(&mut socket, address, config).await?;
        hello.check(address, config.mode)?;
        finish(socket, hello).await
    };
    let mut waiting = endpoints.into_iter();
    let (mut dialling, mut greeting) = (FuturesUnordered::new(), FuturesUnordered::new());
    let mut next = Instant::now();
    loop {
        let failed = tokio::select! {
            biased;
            Some((endpoint, opened)) = greeting.next() => match opened {
                Ok(opened) => return Some(opened),
                Err(failure) => (failure, endpoint),
            },
            Some((endpoint, dialled)) = dialling.next() => match dialled {
                Ok(socket) => {
                    seen.accepted = true;
                    // It answers, so it is given time: a distant server takes several round trips.
                    next = Instant::now() + until.saturating_duration_since(Instant::now()) / 2;
                    let opening = &opening;
                    greeting.push(async move { (endpoint, opening(socket).await) });
                    continue;
                }
                Err(failure) => (failure, endpoint),
            },
            () = sleep_until(next), if waiting.len() > 0 => {
                next = Instant::now() + HEAD_START;
                seen.pending += 1;
                dialling.extend(waiting.next().map(|endpoint| async {
                    let dialled = endpoint.connect(address, config).await;
                    (endpoint, dialled)
                }));
                continue;
            }
            else => return None,
        };
        seen.failed(failed.0, &failed.1, address);
        next = Instant::now();
    }
}

/// Says the first words on a new connection.
async fn greet(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    address: &Address,
    config: &ValkeyConfig,
) -> Result<Hello, Failure> {
    let credentials = config.credentials().await;
    let (username, password) = credentials.map_err(|error| Failure::config(address, &error))?;
    let greeting = Greeting {
        login: password.as_deref().map(|password| (username.as_deref(), password)),
        database: config.database,
        client_name: config.client_name.as_deref(),
        is_cluster: config.mode == Mode::Cluster,
    };
    let commands = greeting.commands();
    let mut request = Vec::new();
    for command in &commands {
        encode(&mut request, &command.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    // A server that turns the client away says why before it closes: that is read, whether or not
    // the greeting could still be written.
    let written = async {
        socket.write_all(&request).await?;
        socket.flush().await
    };
    let mut end = written.await.err();
    let (mut decoder, mut replies) = (Decoder::new(LONGEST_GREETING), Vec::new());
    let mut first_words = None;
    loop {
        let read = socket.read_buf(decoder.buffer()).await;
        let first_words = first_words.get_or_insert_with(|| decoder.buffer().to_vec());
        loop {
            match decoder.next() {
                Ok(Some(Reply::Push { .. })) => {}
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(_) => return Err(hello::stranger(address, first_words)),
            }
        }
        if replies.len() >= commands.len() || matches!(replies[..], [Reply::ServerError(_), ..]) {
            return greeting.read(address, replies);
        }
        match read {
            Ok(1..) => {}
            Ok(0) => return Err(hello::closed(address, config.use_tls, end)),
            Err(error) => {
                end = end.or(Some(error));
                return Err(hello::closed(address, config.use_tls, end));
            }
        }
    }
}
