//! Server-sent events.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::open;

/// A stream of the page's events.
pub(crate) struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    /// Asks for it, and reads nothing.
    pub(crate) async fn open(at: SocketAddr) -> Self {
        let stream = open(at, "GET", "/page/events", &[], "").await;
        Self(BufReader::new(stream).lines())
    }

    /// The status line and the headers.
    pub(crate) async fn head(&mut self) -> Vec<String> {
        let mut head = Vec::new();
        while let Some(line) = self.line().await.filter(|line| !line.is_empty()) {
            head.push(line);
        }
        head
    }

    /// The next event; none at the end of the stream. What the encoding adds, comments and `retry` are
    /// passed over.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        let mut name = None;
        loop {
            let line = self.line().await?;
            if let Some(event) = line.strip_prefix("event: ") {
                name = Some(event.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data = serde_json::from_str(data).expect("JSON");
                return Some((name.expect("events have names"), data));
            }
        }
    }

    /// Reads on until an event of this name is as it should be.
    pub(crate) async fn until(&mut self, name: &str, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (event, data) = self.next().await.expect("the stream goes on");
            if event == name && is(&data) {
                return data;
            }
        }
    }

    pub(crate) async fn line(&mut self) -> Option<String> {
        let line = timeout(Duration::from_secs(60), self.0.next_line()).await;
        line.expect("something within a minute").expect("the connection holds")
    }
}
