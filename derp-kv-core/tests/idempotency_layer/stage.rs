//! A server on a socket with clients of both versions of HTTP, and requests and responses as tests need them.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::handler::Handler;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, Response, StatusCode, Version};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::routing::post;
use derp_kv_core::bytes::Bytes;
use derp_kv_core::{IdempotencyLayer, KvStore, Problem};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tower::ServiceExt;

pub(crate) const PATH: &str = "/orders";

/// The one client of tests that do not say who it is.
pub(crate) fn ada(_: &Parts) -> Result<String, Problem> {
    Ok("ada".to_owned())
}

pub(crate) type Ada = fn(&Parts) -> Result<String, Problem>;

pub(crate) fn layer<S: KvStore + Clone>(kv: S) -> IdempotencyLayer<S, Ada> {
    IdempotencyLayer::new(kv, ada as Ada)
}

/// A request to do something once.
pub(crate) fn order(key: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(PATH).header("idempotency-key", key);
    request.header(CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

/// A response that was read to its end.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn of<B>(response: Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
    {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&[u8]> {
        self.headers.get_all(name).iter().map(|value| value.as_bytes()).collect()
    }

    /// The members of the problem that it is.
    pub(crate) fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        problem
    }

    pub(crate) fn title(&self) -> String {
        self.problem()["title"].as_str().unwrap().to_owned()
    }
}

/// Calls a service without a socket.
pub(crate) async fn call(app: &Router, request: Request<Body>) -> Answer {
    Answer::of(app.clone().oneshot(request).await.unwrap()).await
}

/// A server, for as long as the value lives.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(app: Router) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, task }
    }

    pub(crate) async fn client(&self, version: Version) -> Client {
        Client::connect(self.address, version).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, which ends when the value is dropped.
pub(crate) struct Client {
    sender: Sender,
    connection: AbortHandle,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    async fn connect(address: SocketAddr, version: Version) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        if version == Version::HTTP_2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            let connection = tokio::spawn(async move { drop(connection.await) }).abort_handle();
            Self { sender: Sender::Http2(sender), connection }
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            let connection = tokio::spawn(async move { drop(connection.await) }).abort_handle();
            Self { sender: Sender::Http1(sender), connection }
        }
    }

    pub(crate) async fn try_send(
        &mut self,
        request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                // HTTP/2 wants to know the host from the target.
                let (mut parts, body) = request.into_parts();
                parts.uri = format!("http://localhost{}", parts.uri).parse().unwrap();
                sender.ready().await?;
                sender.send_request(Request::from_parts(parts, body)).await
            }
        }
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        self.try_send(request).await.unwrap()
    }

    pub(crate) async fn answer(&mut self, request: Request<Body>) -> Answer {
        Answer::of(self.send(request).await).await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A number that others wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter(watch::Sender<u32>);

impl Counter {
    /// Adds one and returns the sum.
    pub(crate) fn add(&self) -> u32 {
        let mut sum = 0;
        self.0.send_modify(|number| {
            *number += 1;
            sum = *number;
        });
        sum
    }

    pub(crate) fn get(&self) -> u32 {
        *self.0.borrow()
    }

    pub(crate) async fn until(&self, number: u32) {
        self.0.subscribe().wait_for(|now| *now >= number).await.unwrap();
    }
}

/// The pieces of a body that a test sends one after the other; the body ends when it is dropped.
pub(crate) type Pieces = mpsc::UnboundedSender<Result<Frame<Bytes>, std::io::Error>>;

/// A body of unknown length, as it is sent.
pub(crate) fn streamed() -> (Pieces, Body) {
    let (pieces, sent) = mpsc::unbounded_channel();
    let stream = futures_util::stream::unfold(sent, async |mut sent| {
        let piece = sent.recv().await?;
        Some((piece, sent))
    });
    (pieces, Body::new(StreamBody::new(stream)))
}

pub(crate) fn piece(data: impl Into<Bytes>) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(data.into()))
}

/// Counts the calls that have ended, whether they were answered or dropped.
pub(crate) fn counting_ends(app: Router, ends: &Counter) -> Router {
    let ends = ends.clone();
    app.layer(from_fn(move |request, next: Next| {
        let end = End(ends.clone());
        async move {
            let response = next.run(request).await;
            drop(end);
            response
        }
    }))
}

struct End(Counter);

impl Drop for End {
    fn drop(&mut self) {
        self.0.add();
    }
}

/// An app whose orders `handler` takes.
pub(crate) fn app<H, T>(handler: H) -> Router
where
    H: Handler<T, ()>,
    T: 'static,
{
    Router::new().route(PATH, post(handler))
}

/// What a handler answers that was called for the `number`th time.
pub(crate) fn created(number: u32) -> Response<Body> {
    (
        StatusCode::CREATED,
        [("location", format!("/orders/{number}"))],
        format!("{{\"order\": {number}}}"),
    )
        .into_response()
}

/// The id under which the layer keeps what a client calls `key`.
pub(crate) fn id(key: &str) -> String {
    format!("ada/POST/%2Forders/{key}/")
}
