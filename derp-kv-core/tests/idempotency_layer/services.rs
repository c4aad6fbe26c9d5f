//! Services that panic, hang, fail or must be ready, and what stands around and inside of the layer.

use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use derp_kv_core::bytes::Bytes;
use derp_kv_core::{Idempotency, KvStoreExt, NothingDone, OnAbandoned, RequestBody};
use derp_kv_memory::MemoryStore;
use futures_util::FutureExt;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::stage::{Answer, Counter, PATH, app, call, created, layer, order};

const SECOND: Duration = Duration::from_secs(1);

/// A handler that panics at its first call.
fn panics_once(calls: &Counter) -> Router {
    let calls = calls.clone();
    app(async move || {
        let number = calls.add();
        // Not at once: a panic also ends what has waited.
        tokio::task::yield_now().await;
        assert!(number > 1, "on purpose");
        created(number)
    })
}

#[tokio::test]
async fn a_panic_is_caught_outside_and_frees_the_key() {
    let calls = Counter::default();
    let app = panics_once(&calls).layer(layer(MemoryStore::new())).layer(CatchPanicLayer::new());
    assert_eq!(call(&app, order("k", "")).await.status, 500);
    let second = call(&app, order("k", "")).await;
    assert_eq!((second.status, second.is_replay()), (201, false));
    assert!(call(&app, order("k", "")).await.is_replay());
    assert_eq!(calls.get(), 2);
}

#[tokio::test]
async fn after_a_panic_the_work_waits_for_somebody_to_look_where_that_is_asked() {
    let calls = Counter::default();
    let kv = MemoryStore::new();
    let options = Idempotency::default().on_abandoned(OnAbandoned::Reject);
    let layer = layer(kv.clone()).options(options.clone());
    let id = layer.id("ada", &Method::POST, PATH, "k");
    let app = panics_once(&calls).layer(layer).layer(CatchPanicLayer::new());
    assert_eq!(call(&app, order("k", "")).await.status, 500);
    for _ in 0..2 {
        let rejected = call(&app, order("k", "")).await;
        assert_eq!(
            (rejected.status, &*rejected.title()),
            (409, "An earlier attempt was abandoned")
        );
        assert_eq!(rejected.header("retry-after"), None);
    }
    assert_eq!(calls.get(), 1);
    assert!(kv.idempotent_forget(id, &options).await.unwrap());
    assert_eq!(call(&app, order("k", "")).await.status, 201);
}

/// A handler that hangs until `go`.
fn hangs(calls: &Counter, go: &Counter) -> Router {
    let (calls, go) = (calls.clone(), go.clone());
    app(async move || {
        let number = calls.add();
        go.until(1).await;
        created(number)
    })
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, SECOND)
}

#[tokio::test(start_paused = true)]
async fn a_time_out_inside_ends_the_work_and_frees_the_key() {
    let (calls, go) = (Counter::default(), Counter::default());
    let app = hangs(&calls, &go).layer(timeout()).layer(layer(MemoryStore::new()));
    assert_eq!(call(&app, order("k", "")).await.status, 408);
    go.add();
    let second = call(&app, order("k", "")).await;
    assert_eq!((second.status, second.is_replay(), calls.get()), (201, false, 2));
}

#[tokio::test(start_paused = true)]
async fn work_that_was_cut_off_is_abandoned_where_that_is_asked() {
    let (calls, go) = (Counter::default(), Counter::default());
    let reject = Idempotency::default().on_abandoned(OnAbandoned::Reject);
    let guarded = layer(MemoryStore::new()).options(reject.clone());
    let timed = hangs(&calls, &go).layer(timeout()).layer(guarded);
    assert_eq!(call(&timed, order("k", "")).await.status, 408);
    go.add();
    let second = call(&timed, order("k", "")).await;
    assert_eq!((second.status, &*second.title()), (409, "An earlier attempt was abandoned"));
    assert_eq!(calls.get(), 1);

    // A panic that is caught inside, and an answer that says nothing of what was done.
    let guarded = layer(MemoryStore::new()).options(reject.clone());
    let caught = panics_once(&Counter::default()).layer(CatchPanicLayer::new()).layer(guarded);
    assert_eq!(call(&caught, order("k", "")).await.status, 500);
    assert_eq!(call(&caught, order("k", "")).await.status, 409);

    // Unless the service says that nothing was.
    let calls = Counter::default();
    let closed = {
        let calls = calls.clone();
        async move || {
            calls.add();
            (StatusCode::SERVICE_UNAVAILABLE, Extension(NothingDone))
        }
    };
    let app = app(closed).layer(layer(MemoryStore::new()).options(reject));
    for number in 1..=2 {
        assert_eq!(call(&app, order("k", "")).await.status, 503);
        assert_eq!(calls.get(), number);
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_out_outside_ends_the_wait_and_not_the_work() {
    let (calls, go) = (Counter::default(), Counter::default());
    let app = hangs(&calls, &go).layer(layer(MemoryStore::new())).layer(timeout());
    assert_eq!(call(&app, order("k", "")).await.status, 408);
    // A retry waits as long, and does not do the work beside it.
    assert_eq!(call(&app, order("k", "")).await.status, 408);
    go.add();
    let again = call(&app, order("k", "")).await;
    assert_eq!((again.status, again.is_replay(), calls.get()), (201, true, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_work_that_hangs_is_told_when_to_come_back() {
    let (calls, go) = (Counter::default(), Counter::default());
    let app = hangs(&calls, &go).layer(layer(MemoryStore::new()));
    let first = tokio::spawn({
        let app = app.clone();
        async move { call(&app, order("k", "")).await }
    });
    calls.until(1).await;
    let again = call(&app, order("k", "")).await;
    assert_eq!(again.status, 409);
    assert_eq!(again.title(), "A request is outstanding for this Idempotency-Key");
    assert!(again.header("retry-after").is_some());
    let other = call(&app, order("k", "other")).await;
    assert_eq!(other.status, 422);
    go.add();
    assert_eq!((first.await.unwrap().status, calls.get()), (201, 1));
}

#[tokio::test]
async fn limits_of_calls_around_and_inside_give_their_permits_back() {
    for inside in [true, false] {
        let calls = Counter::default();
        let handler = {
            let calls = calls.clone();
            async move || created(calls.add())
        };
        let (app, limit) = (app(handler), GlobalConcurrencyLimitLayer::new(1));
        let layer = layer(MemoryStore::new());
        let app =
            if inside { app.layer(limit).layer(layer) } else { app.layer(layer).layer(limit) };
        // Work, a replay, a refusal before and one after the key is claimed, and a method that passes.
        for (key, body, status) in
            [("k", "", 201), ("k", "", 201), ("", "", 400), ("k", "other", 422), ("l", "", 201)]
        {
            assert_eq!(call(&app, order(key, body)).await.status, status);
            let get = Request::get(PATH).body(Body::empty()).unwrap();
            assert_eq!(call(&app, get).await.status, 405);
        }
        assert_eq!(calls.get(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn work_whose_client_has_left_keeps_its_permit_of_a_limit_inside() {
    let (calls, go) = (Counter::default(), Counter::default());
    let app = hangs(&calls, &go)
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .layer(layer(MemoryStore::new()))
        .layer(timeout());
    assert_eq!(call(&app, order("k", "")).await.status, 408);
    assert_eq!(call(&app, order("other", "")).await.status, 408);
    assert_eq!(calls.get(), 1);
    go.add();
    assert_eq!(call(&app, order("third", "")).await.status, 201);
}

/// A service that may only be called once it has said that it is ready, as those with a permit.
#[derive(Debug)]
struct Strict {
    is_ready: bool,
    calls: Counter,
}

impl Clone for Strict {
    /// Readiness is not cloned.
    fn clone(&self) -> Self {
        Self { is_ready: false, calls: self.calls.clone() }
    }
}

#[derive(Debug, PartialEq)]
struct Broken(u32);

impl Service<Request<RequestBody<Body>>> for Strict {
    type Response = Response<Body>;
    type Error = Broken;
    type Future = std::future::Ready<Result<Response<Body>, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Body>>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called before it was ready");
        let number = self.calls.add();
        let fails = request.headers().contains_key("fail");
        std::future::ready(if fails { Err(Broken(number)) } else { Ok(created(number)) })
    }
}

/// Calls a service as its contract says: once it is ready.
async fn send<T: Service<Request<Body>>>(
    service: &mut T,
    request: Request<Body>,
) -> Result<T::Response, T::Error> {
    service.ready().await?.call(request).await
}

#[tokio::test]
async fn the_service_that_is_called_is_the_one_that_is_ready() {
    let calls = Counter::default();
    let strict = Strict { is_ready: false, calls: calls.clone() };
    let mut service = ServiceBuilder::new().layer(layer(MemoryStore::new())).service(strict);
    for (method, key) in [("POST", "k"), ("GET", "k"), ("POST", "k"), ("POST", ""), ("POST", "l")] {
        let mut request = order(key, "");
        *request.method_mut() = method.parse().unwrap();
        send(&mut service, request).await.unwrap();
    }
    assert_eq!(calls.get(), 3);
}

#[tokio::test]
async fn an_error_of_the_service_reaches_the_caller_and_frees_the_key() {
    let calls = Counter::default();
    let strict = Strict { is_ready: false, calls: calls.clone() };
    let mut service = ServiceBuilder::new().layer(layer(MemoryStore::new())).service(strict);
    for method in ["POST", "GET"] {
        let mut request = order("k", "");
        *request.method_mut() = method.parse().unwrap();
        request.headers_mut().insert("fail", "1".parse().unwrap());
        let result = send(&mut service, request).await;
        assert_eq!(result.unwrap_err(), Broken(calls.get()));
    }
    let second = send(&mut service, order("k", "")).await.unwrap();
    assert!(!Answer::of(second).await.is_replay());
    assert_eq!(calls.get(), 3);
}

#[tokio::test]
async fn a_function_of_ones_own_that_panics_leaves_nothing_behind() {
    let calls = Counter::default();
    let first = Counter::default();
    let handler = {
        let calls = calls.clone();
        async move |body: Bytes| {
            assert!(body.is_empty());
            created(calls.add())
        }
    };
    let layer = layer(MemoryStore::new()).fingerprint(move |_, body| {
        assert!(first.add() > 1, "on purpose");
        Ok(body.to_vec())
    });
    let app = app(handler).layer(layer);
    assert!(AssertUnwindSafe(call(&app, order("k", ""))).catch_unwind().await.is_err());
    assert_eq!((call(&app, order("k", "")).await.status, calls.get()), (201, 1));
}

#[tokio::test]
async fn of_two_such_layers_the_outer_one_guards() {
    let (calls, kv) = (Counter::default(), MemoryStore::new());
    let handler = {
        let calls = calls.clone();
        async move || created(calls.add())
    };
    let app = app(handler).layer(layer(kv.clone())).layer(layer(kv));
    for is_replay in [false, true] {
        let answer = call(&app, order("k", "")).await;
        assert_eq!((answer.status, answer.is_replay(), calls.get()), (201, is_replay, 1));
    }
}

/// A body that panics after its first piece.
fn panicking() -> Body {
    let mut first = true;
    let stream = futures_util::stream::poll_fn(move |_| {
        assert!(std::mem::take(&mut first), "on purpose");
        Poll::Ready(Some(Ok::<_, std::io::Error>(Bytes::from("piece"))))
    });
    Body::from_stream(stream)
}

#[tokio::test]
async fn work_whose_answer_panics_is_done() {
    for on_abandoned in [OnAbandoned::Rerun, OnAbandoned::Reject] {
        let calls = Counter::default();
        let handler = {
            let calls = calls.clone();
            async move || {
                calls.add();
                panicking()
            }
        };
        let options = Idempotency::default().on_abandoned(on_abandoned);
        let app = app(handler).layer(layer(MemoryStore::new()).options(options));
        let app = app.layer(CatchPanicLayer::new());
        assert_eq!(call(&app, order("k", "")).await.status, 500);
        let again = call(&app, order("k", "")).await;
        assert_eq!((again.status, &again.problem()["answer-status"]), (409, &200.into()));
        assert_eq!(calls.get(), 1);
    }
}
