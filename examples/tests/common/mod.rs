//! A service on a real socket, and a client.
#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod events;
pub(crate) mod program;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{KvStore, RateLimit};
use derp_kv_examples::app::{self, Settings};
use derp_kv_examples::database::Database;
use derp_kv_examples::drain::Drained;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Settings under which only what a test is about limits it.
pub(crate) fn settings() -> Settings {
    Settings { order_limit: RateLimit::new(10_000, Duration::from_secs(60)), ..Settings::default() }
}

/// Starts the service in this runtime.
pub(crate) async fn serve(kv: Arc<dyn KvStore>, settings: Settings) -> SocketAddr {
    serve_on(kv, Arc::new(Database::new(Duration::from_millis(200))), settings).await
}

/// Starts the service on a database that the test knows.
pub(crate) async fn serve_on(
    kv: Arc<dyn KvStore>,
    database: Arc<Database>,
    settings: Settings,
) -> SocketAddr {
    let service = Service::start(kv, database, settings).await;
    // Nobody ever stops it but the end of the runtime.
    std::mem::forget(service.stop);
    service.at
}

/// The service, to be stopped.
pub(crate) struct Service {
    pub(crate) at: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
    drained: Drained,
}

impl Service {
    pub(crate) async fn start(
        kv: Arc<dyn KvStore>,
        database: Arc<Database>,
        settings: Settings,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (router, drained) = app::service(kv, database, settings);
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let (stop, stopped) = oneshot::channel();
        let serve = axum::serve(listener, service).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        Self { at, stop, serving: tokio::spawn(async { serve.await }), drained }
    }

    /// Takes no more requests, and waits for what is under way.
    pub(crate) async fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.serving.await.unwrap().unwrap();
        self.drained.wait().await;
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Asserts a problem with this status, and returns its detail.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{self:?}");
        problem["detail"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    answer(open(at, method, path, headers, body).await).await
}

/// Sends one request under another `Host` than the address that it goes to.
pub(crate) async fn send_as(
    at: SocketAddr,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    answer(open_as(at, host, method, path, headers, body).await).await
}

/// Reads the answer to a request.
pub(crate) async fn answer(mut stream: TcpStream) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.parse().expect("a number"),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}

/// Sends one request, and leaves its answer to be read or abandoned.
pub(crate) async fn open(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> TcpStream {
    open_as(at, &at.to_string(), method, path, headers, body).await
}

async fn open_as(
    at: SocketAddr,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> TcpStream {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    request += body;
    let mut stream = TcpStream::connect(at).await.expect("the service listens");
    stream.write_all(request.as_bytes()).await.expect("the service reads");
    stream
}

pub(crate) async fn get(at: SocketAddr, path: &str) -> Answer {
    send(at, "GET", path, &[], "").await
}

pub(crate) async fn put(at: SocketAddr, path: &str, body: &str) -> Answer {
    send(at, "PUT", path, &[], body).await
}

pub(crate) async fn order(at: SocketAddr, key: &str, body: &str) -> Answer {
    send(at, "POST", "/orders", &[("Idempotency-Key", key), ("X-User", "ada")], body).await
}

pub(crate) async fn webhook(at: SocketAddr, body: &str) -> Answer {
    send(at, "POST", "/webhooks/shop", &[], body).await
}

pub(crate) async fn stat(at: SocketAddr, name: &str) -> u64 {
    get(at, "/stats").await.json()[name].as_u64().expect("a number")
}

/// The path of a file that is not there yet, in a directory that cargo keeps for tests.
pub(crate) fn scratch(name: &str) -> std::path::PathBuf {
    let name = format!("{}-{name}", std::process::id());
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    path
}
