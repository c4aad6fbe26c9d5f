//! A server that answers what a test tells it to.
#![allow(dead_code, reason = "each test target uses a part")]
#![allow(unreachable_pub, reason = "a module of several test targets")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The answer that ends the connection instead.
pub const CUT: &str = "cut";

pub struct Fake {
    at: SocketAddr,
    connections: Arc<AtomicU64>,
    cut: Arc<Notify>,
    _serving: JoinSet<()>,
}

impl Fake {
    /// Answers each request, given word by word, with what `answer` makes of it.
    pub async fn start<R>(answer: impl Fn(Vec<String>) -> R + Send + Sync + 'static) -> Self
    where
        R: Future<Output = String> + Send + 'static,
    {
        Self::with_port(move |_, request| answer(request)).await
    }

    /// [`start`](Self::start), for answers that name the server's own port.
    pub async fn with_port<R>(
        answer: impl Fn(u16, Vec<String>) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = String> + Send + 'static,
    {
        Self::serve(Ipv4Addr::LOCALHOST.into(), answer).await
    }

    /// [`start`](Self::start) at an address of this machine.
    pub async fn start_at<R>(
        ip: IpAddr,
        answer: impl Fn(Vec<String>) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = String> + Send + 'static,
    {
        Self::serve(ip, move |_, request| answer(request)).await
    }

    async fn serve<R>(
        ip: IpAddr,
        answer: impl Fn(u16, Vec<String>) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = String> + Send + 'static,
    {
        let listener = TcpListener::bind((ip, 0)).await.expect("a port");
        let at = listener.local_addr().expect("bound");
        let port = at.port();
        let (answer, connections) = (Arc::new(answer), Arc::new(AtomicU64::new(0)));
        let mut serving = JoinSet::new();
        let (accepted, cut) = (Arc::clone(&connections), Arc::new(Notify::new()));
        let cutting = Arc::clone(&cut);
        serving.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let (answer, cut) = (Arc::clone(&answer), Arc::clone(&cutting));
                clients.spawn(async move {
                    let mut client = BufReader::new(client);
                    let serving = async {
                        while let Some(request) = request(&mut client).await {
                            let answer = answer(port, request).await;
                            if answer == CUT || client.write_all(answer.as_bytes()).await.is_err() {
                                break;
                            }
                        }
                    };
                    tokio::select! {
                        () = serving => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        Self { at, connections, cut, _serving: serving }
    }

    pub fn port(&self) -> u16 {
        self.at.port()
    }

    pub fn address(&self) -> (String, u16) {
        (self.at.ip().to_string(), self.at.port())
    }

    pub fn socket_address(&self) -> SocketAddr {
        self.at
    }

    /// Cuts every connection of now.
    pub fn cut_all(&self) {
        self.cut.notify_waiters();
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// The next request, or `None` at the end.
pub async fn request(client: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut words = Vec::new();
    for _ in 0..number(client, '*').await? {
        let mut word = vec![0; number(client, '$').await? + 2];
        client.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words)
}

async fn number(client: &mut BufReader<TcpStream>, kind: char) -> Option<usize> {
    let mut line = String::new();
    client.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(kind)?.parse().ok()
}

/// What a server says when a connection begins, where `request` belongs to that.
pub fn greeting(request: &[String], version: &str, mode: &str) -> Option<String> {
    match request[0].as_str() {
        "HELLO" => Some(format!(
            "%3\r\n+server\r\n+valkey\r\n+version\r\n+{version}\r\n+mode\r\n+{mode}\r\n"
        )),
        "CLIENT" => Some("+OK\r\n".to_owned()),
        _ => None,
    }
}

/// An answer to `CLUSTER SLOTS`: first and last slot, and host, port and id of its primary.
pub fn slots(rows: &[(u16, u16, &str, u16, &str)]) -> String {
    let mut answer = format!("*{}\r\n", rows.len());
    for (first, last, host, port, id) in rows {
        let (host, id) = (bulk(host), bulk(id));
        answer += &format!("*3\r\n:{first}\r\n:{last}\r\n*4\r\n{host}:{port}\r\n{id}*0\r\n");
    }
    answer
}

pub fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}
