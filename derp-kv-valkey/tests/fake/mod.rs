//! A server that answers what a test tells it to.
#![allow(dead_code, reason = "each test target uses a part")]
#![allow(unreachable_pub, reason = "a module of several test targets")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub struct Fake {
    port: u16,
    connections: Arc<AtomicU64>,
    _serving: JoinSet<()>,
}

impl Fake {
    /// Answers each request, given word by word, with what `answer` makes of it.
    pub async fn start<R>(answer: impl Fn(Vec<String>) -> R + Send + Sync + 'static) -> Self
    where
        R: Future<Output = String> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (answer, connections) = (Arc::new(answer), Arc::new(AtomicU64::new(0)));
        let mut serving = JoinSet::new();
        let accepted = Arc::clone(&connections);
        serving.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let answer = Arc::clone(&answer);
                clients.spawn(async move {
                    let mut client = BufReader::new(client);
                    while let Some(request) = request(&mut client).await {
                        let answer = answer(request).await;
                        if client.write_all(answer.as_bytes()).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { port, connections, _serving: serving }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> (String, u16) {
        ("127.0.0.1".to_owned(), self.port)
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
