//! `RateLimitLayer` in front of services as they are built with axum and tower.
#![cfg(feature = "tower")]

mod common;
mod loopback;

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::get;
use bytes::Bytes;
use common::drop_after;
use common::scripted::scripted;
use derp_kv_conformance::{CountingStore, Fault, FaultStore};
use derp_kv_core::{
    ByExtension, ByHeader, ByPeer, ClientId, Error, ErrorKind, KvStore, Layer as StoreLayer,
    Layered, Operation, Problem, RateLimit, RateLimitLayer, Result, WithoutStore,
};
use derp_kv_memory::MemoryStore;
use futures_util::future::join_all;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use loopback::{Answer, Client, serve};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tower::limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{Any, CorsLayer};
use tower_http::timeout::TimeoutLayer;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// So many an hour, however long the test takes.
fn hourly(limit: u64) -> RateLimit {
    RateLimit::new(limit, HOUR)
}

/// Everybody is one client.
fn anybody(_: &Parts) -> Result<String, Problem> {
    Ok("anybody".to_owned())
}

/// The client is who it says it is.
fn named(request: &Parts) -> Result<String, Problem> {
    let name = request.headers.get("client").ok_or_else(|| Problem::new(400, "Bad Request"))?;
    Ok(String::from_utf8_lossy(name.as_bytes()).into_owned())
}

fn peer(request: &Parts) -> Option<SocketAddr> {
    request.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
}

fn orders() -> Router {
    Router::new().route("/orders", get(|| async { "none yet" }))
}

fn ask(method: Method, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri("/orders");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

fn get_orders() -> Request<Body> {
    ask(Method::GET, &[])
}

/// What a service without a socket answers.
async fn answer(app: &Router, request: Request<Body>) -> Answer {
    let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

#[tokio::test]
async fn every_response_tells_the_client_how_it_stands() {
    let layer = RateLimitLayer::new(MemoryStore::new(), "orders", hourly(4), anybody);
    let server = serve(orders().layer(layer)).await;
    let mut remaining = 4;
    for mut client in Client::both(&server).await {
        for _ in 0..2 {
            remaining -= 1;
            let allowed = client.send(get_orders()).await;
            assert_eq!((allowed.status, &*allowed.body), (StatusCode::OK, &b"none yet"[..]));
            assert_eq!(allowed.header("ratelimit-policy"), Some(r#""orders";q=4;w=3600"#));
            let told = allowed.header("ratelimit").unwrap().to_owned();
            assert!(told.starts_with(&format!(r#""orders";r={remaining};t=3"#)), "{told}");
            assert_eq!(allowed.header("retry-after"), None);
            assert_eq!(allowed.header("content-length"), Some("8"));
        }
    }
    for mut client in Client::both(&server).await {
        let denied = client.send(get_orders()).await;
        assert_eq!(denied.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(denied.header("ratelimit-policy"), Some(r#""orders";q=4;w=3600"#));
        let retry_after = denied.header("retry-after").unwrap();
        let told = format!(r#""orders";r=0;t={retry_after}"#);
        assert_eq!(denied.header("ratelimit"), Some(&*told));
        assert_eq!(denied.header("content-type"), Some("application/problem+json"));
        assert_eq!(denied.header("content-length"), Some(&*denied.body.len().to_string()));
        let problem = json!({
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "status": 429,
            "violated-policies": ["orders"],
        });
        assert_eq!(denied.json(), problem);
    }
}

#[tokio::test]
async fn many_requests_on_one_connection_get_exactly_the_limit() {
    let layer = RateLimitLayer::new(MemoryStore::new(), "default", hourly(10), anybody);
    let server = serve(orders().layer(layer)).await;
    let Client::Http2(sender) = Client::http2(&server).await else { unreachable!() };
    let sent = (0..50).map(|_| {
        let mut client = Client::Http2(sender.clone());
        async move { client.send(get_orders()).await.status }
    });
    let statuses = join_all(sent).await;
    let of = |status| statuses.iter().filter(|other| **other == status).count();
    assert_eq!((of(StatusCode::OK), of(StatusCode::TOO_MANY_REQUESTS)), (10, 40));
}

#[tokio::test]
async fn the_headers_can_be_turned_off() {
    let layer =
        RateLimitLayer::new(MemoryStore::new(), "orders", hourly(1), anybody).without_headers();
    let app = orders().layer(layer);
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let told = answer(&app, get_orders()).await;
        assert_eq!(told.status, status);
        assert_eq!((told.header("ratelimit-policy"), told.header("ratelimit")), (None, None));
        assert_eq!(told.header("retry-after").is_some(), status != StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn several_limits_and_several_layers_add_up() {
    let kv = MemoryStore::new();
    let all = RateLimit::all([RateLimit::strict(2, SECOND), RateLimit::strict(9, HOUR)]);
    let inside =
        RateLimitLayer::new(kv.clone(), "orders", all, named).policy_names(["second", "hour"]);
    let outside = RateLimitLayer::new(kv, "everything", hourly(3), anybody);
    let app = orders().layer(inside).layer(outside);
    let values = |told: &Answer, name: &str| -> Vec<String> {
        let values = told.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let policies = [r#""second";q=2;w=1, "hour";q=9;w=3600"#, r#""everything";q=3;w=3600"#];
    for _ in 0..2 {
        let allowed = answer(&app, ask(Method::GET, &[("client", "ada")])).await;
        assert_eq!(allowed.status, StatusCode::OK);
        assert_eq!(values(&allowed, "ratelimit-policy"), policies);
        assert_eq!(values(&allowed, "ratelimit").len(), 2);
    }
    // The one inside says when to come back; what the other has left would tell another time.
    let denied = answer(&app, ask(Method::GET, &[("client", "ada")])).await;
    assert_eq!(denied.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(denied.json()["violated-policies"], json!(["second"]));
    assert_eq!(values(&denied, "ratelimit-policy"), policies);
    assert_eq!(values(&denied, "ratelimit"), [r#""second";r=0;t=2"#]);
    let denied = answer(&app, ask(Method::GET, &[("client", "bob")])).await;
    assert_eq!(denied.json()["violated-policies"], json!(["everything"]));
    assert_eq!(values(&denied, "ratelimit-policy"), [policies[1]]);
}

#[tokio::test]
async fn layers_of_one_name_count_together_and_others_do_not() {
    let kv = MemoryStore::new();
    let layer = |name: &str| RateLimitLayer::new(kv.clone(), name, hourly(1), named);
    let status = async |name: &str, client: &str| {
        answer(&orders().layer(layer(name)), ask(Method::GET, &[("client", client)])).await.status
    };
    assert_eq!(status("a", "ada").await, StatusCode::OK);
    assert_eq!(status("a", "ada").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(status("b", "ada").await, StatusCode::OK);
    assert_eq!(status("a", "bob").await, StatusCode::OK);
    // No name and client join to those of another.
    assert_eq!(status("a/ada", "").await, StatusCode::BAD_REQUEST);
    assert_eq!(status("a/b", "c").await, StatusCode::OK);
    assert_eq!(status("a", "b/c").await, StatusCode::OK);

    let layer = layer("a");
    assert_eq!(layer.id("ada"), "a/ada/");
    assert!(layer.limiter().reset(layer.id("ada")).await.unwrap());
    assert_eq!(status("a", "ada").await, StatusCode::OK);
}

/// A service that knows whether it was polled ready, as one that holds a permit does.
struct Readied {
    ready: bool,
    calls: Arc<AtomicU32>,
}

impl Clone for Readied {
    fn clone(&self) -> Self {
        Self { ready: false, calls: self.calls.clone() }
    }
}

impl Service<Request<Body>> for Readied {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "it is called without having been polled ready");
        self.calls.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(Response::new(Full::default())))
    }
}

#[tokio::test]
async fn the_service_that_was_polled_ready_is_the_one_that_is_called() {
    let calls = Arc::new(AtomicU32::new(0));
    let inner = Readied { ready: false, calls: calls.clone() };
    let layer = RateLimitLayer::new(MemoryStore::new(), "default", hourly(100), anybody);
    let mut service = layer.layer(inner);
    for _ in 0..3 {
        let mut clone = service.clone();
        for service in [&mut service, &mut clone] {
            assert!(service.ready().await.unwrap().call(get_orders()).await.is_ok());
        }
    }
    assert_eq!(calls.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn a_refused_request_holds_no_permit_of_the_service() {
    let limit = || RateLimitLayer::new(MemoryStore::new(), "default", hourly(2), anybody);
    let inside = ServiceBuilder::new().layer(limit()).layer(GlobalConcurrencyLimitLayer::new(1));
    let outside = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(1)).layer(limit());
    for app in [orders().layer(inside), orders().layer(outside)] {
        let server = serve(app).await;
        let [mut one, mut two] = Client::both(&server).await;
        for status in [200, 200, 429, 429, 429] {
            assert_eq!(one.send(get_orders()).await.status, status);
        }
        let (one, two) = tokio::join!(one.send(get_orders()), two.send(get_orders()));
        assert_eq!((one.status, two.status), (StatusCode::TOO_MANY_REQUESTS, one.status));
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_bounds_a_store_that_hangs() {
    let kv = FaultStore::nth_of(MemoryStore::new(), Operation::Incr, 0, Fault::Hang);
    let layer = RateLimitLayer::new(kv, "default", hourly(5), anybody);
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, SECOND);
    // Without axum's own bodies in between: the timeout makes a body of the layer's type.
    let inner = service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("none yet")))
    });
    let permits = GlobalConcurrencyLimitLayer::new(1);
    let mut service =
        ServiceBuilder::new().layer(timeout).layer(layer).layer(permits).service(inner);
    for status in [504, 200, 200] {
        let response = service.ready().await.unwrap().call(get_orders()).await.unwrap();
        assert_eq!(response.status(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_is_an_answer_as_any_other() {
    let layer = RateLimitLayer::new(MemoryStore::new(), "default", hourly(5), anybody);
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, SECOND);
    let app = Router::new().route("/orders", get(pending::<()>)).layer(timeout).layer(layer);
    let told = answer(&app, get_orders()).await;
    assert_eq!(told.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(told.header("ratelimit"), Some(r#""default";r=4;t=3600"#));
}

#[tokio::test]
async fn a_handler_that_panics_was_counted_and_the_next_request_goes_on() {
    let layer = RateLimitLayer::new(MemoryStore::new(), "default", hourly(2), anybody);
    let handler = || async {
        if true {
            panic!("the test's own");
        }
    };
    let app =
        Router::new().route("/orders", get(handler)).layer(layer).layer(CatchPanicLayer::new());
    for status in [500, 500, 429] {
        assert_eq!(answer(&app, get_orders()).await.status, status);
    }
}

#[tokio::test]
async fn behind_cors_a_preflight_is_not_counted_and_a_browser_can_read_a_refusal() {
    let cors = || CorsLayer::new().allow_origin(Any).allow_methods(Any).expose_headers(Any);
    let limit = || RateLimitLayer::new(MemoryStore::new(), "default", hourly(1), anybody);
    let origin = ("origin", "https://shop.example");
    let preflight = [origin, ("access-control-request-method", "GET")];
    let server = serve(orders().layer(limit()).layer(cors())).await;
    let [mut client, _] = Client::both(&server).await;
    for status in [200, 429] {
        for _ in 0..3 {
            let told = client.send(ask(Method::OPTIONS, &preflight)).await;
            assert_eq!(told.status, StatusCode::OK);
            assert_eq!(told.header("access-control-allow-origin"), Some("*"));
            assert_eq!(told.header("ratelimit"), None);
        }
        let told = client.send(ask(Method::GET, &[origin])).await;
        assert_eq!(told.status, status);
        assert_eq!(told.header("access-control-allow-origin"), Some("*"));
    }
    // Nobody else lets what says to be one pass: a service may do something for it.
    let server = serve(orders().layer(limit())).await;
    let [mut client, _] = Client::both(&server).await;
    client.send(ask(Method::OPTIONS, &preflight)).await;
    assert_eq!(client.send(ask(Method::OPTIONS, &preflight)).await.status, 429);
}

/// A store whose calls wait until the test lets them pass, and tell when they are dropped.
#[derive(Clone, Debug)]
struct Gate {
    open: Arc<Semaphore>,
    /// How many calls wait.
    waiting: watch::Sender<u32>,
}

struct Waits<'a>(&'a Gate);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting -= 1);
    }
}

impl StoreLayer for Gate {
    async fn around<T: Send>(
        &self,
        _: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let waits = Waits(self);
        self.open.acquire().await.unwrap().forget();
        drop(waits);
        call.await
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_question_along() {
    let gate = Gate { open: Arc::new(Semaphore::new(0)), waiting: watch::Sender::new(0) };
    let kv = Layered::new(MemoryStore::new(), gate.clone());
    let calls = Arc::new(AtomicU32::new(0));
    let counts = calls.clone();
    let handler = move || {
        counts.fetch_add(1, Ordering::SeqCst);
        async { "none yet" }
    };
    let layer = ServiceBuilder::new()
        .layer(RateLimitLayer::new(kv, "default", hourly(5), anybody))
        .layer(GlobalConcurrencyLimitLayer::new(1));
    let server = serve(Router::new().route("/orders", get(handler)).layer(layer)).await;
    let mut waiting = gate.waiting.subscribe();

    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /orders HTTP/1.1\r\nhost: shop\r\n\r\n").await.unwrap();
    waiting.wait_for(|waiting| *waiting == 1).await.unwrap();
    drop(stream);
    waiting.wait_for(|waiting| *waiting == 0).await.unwrap();

    let Client::Http2(mut sender) = Client::http2(&server).await else { unreachable!() };
    let request = tokio::spawn(sender.send_request(get_orders()));
    waiting.wait_for(|waiting| *waiting == 1).await.unwrap();
    request.abort();
    waiting.wait_for(|waiting| *waiting == 0).await.unwrap();

    gate.open.add_permits(1);
    let told = Client::http1(&server).await.send(get_orders()).await;
    assert_eq!(told.status, StatusCode::OK, "the permit of those who went away is free");
    assert!(told.header("ratelimit").unwrap().starts_with(r#""default";r=4"#));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_that_is_dropped_anywhere_is_counted_or_not() {
    for limit in [hourly(1000), RateLimit::strict(1000, HOUR)] {
        let data = MemoryStore::new();
        let calls = Arc::new(AtomicU32::new(0));
        let layer = RateLimitLayer::new(scripted(&data), "default", limit, anybody);
        let mut sent = 0;
        for polls in 0.. {
            let inner = Readied { ready: false, calls: calls.clone() };
            let before = calls.load(Ordering::SeqCst);
            let mut service = layer.layer(inner);
            let request = service.ready().await.unwrap().call(get_orders());
            let finished = drop_after(polls, request).await;
            sent += 1;
            let called = calls.load(Ordering::SeqCst) - before;
            assert!(called <= 1 && (!finished || called == 1));
            let counted = layer.limiter().peek(layer.id("anybody")).await.unwrap().count;
            assert!(counted <= sent && counted >= calls.load(Ordering::SeqCst).into());
            if finished {
                break;
            }
        }
        assert!(sent > 2, "it was dropped at several places");
    }
}

/// A store that fails each call in its own way.
#[derive(Clone, Debug)]
struct Fails(ErrorKind);

impl StoreLayer for Fails {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _: Option<&[u8]>,
        _: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        Err(Error::new(self.0, "node 10.0.0.7 says SECRET").with_operation(operation))
    }
}

#[tokio::test]
async fn where_the_store_fails_a_request_is_answered_as_the_policy_says() {
    let problem = json!({
        "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "title": "Request cannot be satisfied due to temporary server capacity constraints",
        "status": 503,
    });
    for kind in [
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::AccessDenied,
        ErrorKind::ReadOnly,
        ErrorKind::Full,
        ErrorKind::Backend,
    ] {
        let kv = Layered::new(MemoryStore::new(), Fails(kind));
        let layer = RateLimitLayer::new(kv, "orders", hourly(2), anybody);
        for layer in [layer.clone(), layer.clone().on_store_error(WithoutStore::Deny)] {
            let told = answer(&orders().layer(layer), get_orders()).await;
            assert_eq!(
                (told.status, told.json()),
                (StatusCode::SERVICE_UNAVAILABLE, problem.clone())
            );
            assert_eq!(told.header("retry-after"), Some("5"));
            assert_eq!(told.header("ratelimit-policy"), Some(r#""orders";q=2;w=3600"#));
            assert_eq!(told.header("ratelimit"), None, "nobody counted");
        }
        let allows = orders().layer(layer.clone().on_store_error(WithoutStore::Allow));
        let told = answer(&allows, get_orders()).await;
        assert_eq!((told.status, told.header("ratelimit")), (StatusCode::OK, None));
        assert_eq!(told.header("ratelimit-policy"), Some(r#""orders";q=2;w=3600"#));
        let local = orders().layer(layer.on_store_error(WithoutStore::Local { share: 0.5 }));
        for status in [200, 429] {
            let told = answer(&local, get_orders()).await;
            assert_eq!(told.status, status);
            // A share was counted, of which the policy beside it says nothing.
            assert_eq!(told.header("ratelimit"), None);
            assert_eq!(told.header("retry-after").is_some(), status == 429);
        }
    }
}

#[tokio::test]
async fn a_store_that_is_back_is_asked_again_and_the_log_can_have_its_error() {
    let kv = FaultStore::nth(MemoryStore::new(), 0, Fault::FailBefore);
    let layer = RateLimitLayer::new(kv, "default", hourly(2), anybody);
    let app = orders().layer(layer);
    let response = app.clone().oneshot(get_orders()).await.unwrap();
    let error = response.extensions().get::<Arc<Error>>().unwrap();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Unavailable, Some(Operation::Incr)));
    assert_eq!(response.extensions().get::<Problem>().unwrap().status_code(), 503);
    assert_eq!(answer(&app, get_orders()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_mistake_of_ours_is_not_the_clients() {
    let kv = MemoryStore::new();
    kv.set(b"derp:strict:default/anybody/", b"SECRET", None).await.unwrap();
    for limit in [
        RateLimit::all([]),
        RateLimit::new(1, Duration::ZERO),
        RateLimit::new(1, HOUR).cost(2),
        // What is kept there is something else.
        RateLimit::strict(1, HOUR),
    ] {
        let app = orders().layer(RateLimitLayer::new(kv.clone(), "default", limit, anybody));
        let told = answer(&app, get_orders()).await;
        assert_eq!(told.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(told.header("ratelimit-policy"), None);
        let about_blank =
            json!({ "type": "about:blank", "title": "Internal Server Error", "status": 500 });
        assert_eq!(told.json(), about_blank);
    }
}

#[tokio::test]
async fn a_denied_client_asks_no_store_where_it_is_blocked() {
    let kv = CountingStore::new(MemoryStore::new());
    let layer = RateLimitLayer::new(kv.clone(), "default", hourly(1), anybody).block_locally();
    let app = orders().layer(layer);
    for status in [200, 429, 429, 429] {
        let told = answer(&app, get_orders()).await;
        assert_eq!(told.status, status);
        if status == 429 {
            let retry_after = told.header("retry-after").unwrap();
            let expected = format!(r#""default";r=0;t={retry_after}"#);
            assert_eq!(told.header("ratelimit"), Some(&*expected));
        }
    }
    assert_eq!(kv.counts().total(), 2);
}

#[tokio::test]
async fn the_answer_of_the_service_is_handed_on_as_it_is() {
    let inner = service_fn(|request: Request<Full<Bytes>>| async {
        // Three frames: two of data, the trailers.
        let body = request.into_body();
        let mut trailers = HeaderMap::new();
        trailers.insert("checksum", "7".parse().unwrap());
        let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
        let response = Response::builder().status(418).header("retry-after", "7");
        Ok::<_, Infallible>(response.header("x", "1").header("x", "2").body(body).unwrap())
    });
    let mut service = RateLimitLayer::new(MemoryStore::new(), "default", hourly(1), anybody)
        .layer(service_fn(move |r| inner.clone().call(r)));
    let request = Request::new(Full::<Bytes>::from("hello"));
    let response = service.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(response.headers().get_all("x").iter().count(), 2);
    assert_eq!(response.headers()["retry-after"], "7");
    assert!(response.headers().contains_key("ratelimit-policy"));
    assert!(!response.headers().contains_key("ratelimit"), "the service says when to come back");
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["checksum"], "7");
    assert_eq!(body.to_bytes(), "hello");
}

#[tokio::test]
async fn an_error_of_the_service_stays_its_own() {
    let inner = service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>("broken") });
    let mut service =
        RateLimitLayer::new(MemoryStore::new(), "default", hourly(1), anybody).layer(inner);
    let error = service.ready().await.unwrap().call(get_orders()).await.unwrap_err();
    assert_eq!(error, "broken");
}

#[derive(Clone)]
struct User(&'static str);

#[tokio::test]
async fn who_has_logged_in_is_a_user_and_everybody_else_an_address() {
    let user = ByExtension::new("user", |user: &User| user.0.to_owned());
    let client = user.clone().or(ByPeer::new(peer));
    let kv = MemoryStore::new();
    let layer = RateLimitLayer::new(kv.clone(), "default", hourly(1), client);
    let log_in = async |mut request: Request<Body>, next: axum::middleware::Next| {
        if request.headers().contains_key("authorization") {
            request.extensions_mut().insert(User("ada"));
        }
        next.run(request).await
    };
    let app = orders().layer(layer.clone()).layer(axum::middleware::from_fn(log_in));
    let server = serve(app).await;
    let mut client = Client::http1(&server).await;
    let ada = [("authorization", "ada's")];
    for (headers, status) in [(&ada[..], 200), (&[], 200), (&[], 429), (&ada[..], 429)] {
        assert_eq!(client.send(ask(Method::GET, headers)).await.status, status);
    }
    for id in ["user:ada", "ip:127.0.0.1"] {
        assert_eq!(layer.limiter().peek(layer.id(id)).await.unwrap().count, 2, "{id}");
    }

    let app = orders().layer(RateLimitLayer::new(kv, "default", hourly(1), user));
    let told = answer(&app, get_orders()).await;
    assert_eq!((told.status, told.header("ratelimit-policy")), (StatusCode::UNAUTHORIZED, None));
}

#[tokio::test]
async fn a_request_without_a_client_is_refused_and_says_why() {
    let kv = MemoryStore::new();
    let key = HeaderName::from_static("x-api-key");
    let by_header =
        orders().layer(RateLimitLayer::new(kv.clone(), "default", hourly(9), ByHeader::new(key)));
    for (headers, status, detail) in [
        (&[][..], 401, "The header `x-api-key` must be sent."),
        (&[("x-api-key", "")], 400, "The header `x-api-key` must be sent, once."),
        (
            &[("x-api-key", "a"), ("x-api-key", "b")],
            400,
            "The header `x-api-key` must be sent, once.",
        ),
    ] {
        let told = answer(&by_header, ask(Method::GET, headers)).await;
        assert_eq!(
            (told.status.as_u16(), &*told.json()["detail"].to_string()),
            (status, &*format!("{detail:?}"))
        );
    }
    let told = answer(&by_header, ask(Method::GET, &[("x-api-key", "a")])).await;
    assert_eq!(told.status, StatusCode::OK);

    let by_peer = orders().layer(RateLimitLayer::new(kv, "default", hourly(9), ByPeer::new(peer)));
    let told = answer(&by_peer, get_orders()).await;
    assert_eq!(told.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(told.json()["detail"].as_str().unwrap().contains("address"));
}

/// Looks a session up, which takes a while and may fail.
#[derive(Clone)]
struct Sessions(MemoryStore);

impl ClientId for Sessions {
    async fn client_id(&self, request: &Parts) -> Result<String, Problem> {
        let refused =
            || Problem::new(403, "No session").with_type_uri("https://shop.example/session");
        let session = request.headers.get("session").ok_or_else(refused)?;
        let user = self.0.get(session.as_bytes()).await.map_err(|error| error.problem())?;
        tokio::task::yield_now().await;
        user.map(|user| String::from_utf8_lossy(&user).into_owned()).ok_or_else(refused)
    }
}

#[tokio::test]
async fn who_the_client_is_may_have_to_be_looked_up() {
    let sessions = MemoryStore::new();
    sessions.set(b"one", b"ada", None).await.unwrap();
    sessions.set(b"two", b"ada", None).await.unwrap();
    let layer = RateLimitLayer::new(MemoryStore::new(), "default", hourly(2), Sessions(sessions));
    let server = serve(orders().layer(layer)).await;
    let mut client = Client::http2(&server).await;
    for (session, status) in [("one", 200), ("two", 200), ("one", 429), ("three", 403)] {
        let told = client.send(ask(Method::GET, &[("session", session)])).await;
        assert_eq!(told.status, status);
    }
}

#[tokio::test]
async fn hostile_headers_on_the_wire_are_counted_or_refused() {
    let kv = CountingStore::new(MemoryStore::new());
    let client = ByHeader::new(HeaderName::from_static("x-api-key")).or(ByPeer::new(peer));
    let server =
        serve(orders().layer(RateLimitLayer::new(kv, "default", hourly(1000), client))).await;
    let huge = "x".repeat(8000);
    let many = "x-forwarded-for: 192.0.2.1\r\n".repeat(60);
    let refused = [b"x-api-key:\r\nx-api-key:\r\n".to_vec()];
    let counted = [
        b"x-api-key: \xff\xfe\x80\r\n".to_vec(),
        format!("x-api-key: {huge}\r\n").into_bytes(),
        format!("x-forwarded-for: {huge}\r\n{many}").into_bytes(),
        b"x-forwarded-for: \xff,,,\t,[::\r\n".to_vec(),
        b"x-api-key: {slot}:lock\r\n".to_vec(),
    ];
    let all = counted.into_iter().map(|headers| (headers, true));
    for (headers, is_counted) in all.chain(refused.map(|headers| (headers, false))) {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = [b"GET /orders HTTP/1.0\r\nhost: shop\r\n", &headers[..], b"\r\n"].concat();
        stream.write_all(&request).await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        let response = String::from_utf8_lossy(&response);
        let status = if is_counted { "200 OK" } else { "400 Bad Request" };
        assert!(response.starts_with(&format!("HTTP/1.0 {status}\r\n")), "{response}");
        assert_eq!(response.contains("ratelimit: \"default\";r=9"), is_counted, "{response}");
    }
}
