//! What the layer is told: which answers to keep, what makes two requests the same, and who the client is.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::http::request::Parts;
use axum::http::{HeaderName, Method, Request, StatusCode};
use axum::response::IntoResponse;
use axum::routing::any;
use derp_kv_core::bytes::Bytes;
use derp_kv_core::{
    Attempt, ByHeader, Expiry, Idempotency, IdempotencyLayer, KvStore, NothingDone, OnAbandoned,
    Problem,
};
use derp_kv_memory::MemoryStore;
use serde_json::Value;

use crate::stage::{Counter, PATH, app, call, created, layer, order};

#[tokio::test]
async fn the_status_code_says_whether_an_answer_is_kept() {
    for keeps_all in [false, true] {
        for status in [200, 204, 303, 400, 404, 410, 422, 401, 403, 408, 409, 425, 429, 500, 503] {
            let calls = Counter::default();
            let handler = {
                let calls = calls.clone();
                async move || {
                    calls.add();
                    StatusCode::from_u16(status).unwrap()
                }
            };
            let options = Idempotency::default();
            let options = if keeps_all { options.keep_all() } else { options };
            let app = app(handler).layer(layer(MemoryStore::new()).options(options));
            let first = call(&app, order("k", "")).await;
            let again = call(&app, order("k", "")).await;
            assert_eq!((first.status, again.status), (status, status));
            let is_kept = keeps_all || !matches!(status, 401 | 403 | 408 | 409 | 425 | 429 | 500..);
            assert_eq!(again.is_replay(), is_kept, "{status}");
            assert_eq!(calls.get(), if is_kept { 1 } else { 2 }, "{status}");
        }
    }
}

#[tokio::test]
async fn one_more_header_is_kept_and_a_cookie_never() {
    let handler = async || [("x-order", "1"), ("set-cookie", "a=b"), ("x-trace", "7")];
    let layer = layer(MemoryStore::new())
        .keep_header(HeaderName::from_static("x-order"))
        .keep_header(HeaderName::from_static("set-cookie"));
    let app = app(handler).layer(layer);
    let first = call(&app, order("k", "")).await;
    assert_eq!(first.header("set-cookie"), Some("a=b"));
    let again = call(&app, order("k", "")).await;
    assert_eq!(again.header("x-order"), Some("1"));
    assert_eq!((again.header("set-cookie"), again.header("x-trace")), (None, None));
}

fn orders(calls: &Counter) -> Router {
    let calls = calls.clone();
    app(async move || created(calls.add()))
}

/// The parsed order, in which neither white space nor the order of its keys counts.
fn parsed(_: &Parts, body: &Bytes) -> Result<String, Problem> {
    let order: Value =
        serde_json::from_slice(body).map_err(|_| Problem::new(400, "The order is no JSON"))?;
    Ok(order.to_string())
}

#[tokio::test]
async fn the_bytes_count_unless_a_service_says_what_does() {
    let calls = Counter::default();
    let app = orders(&calls).layer(layer(MemoryStore::new()));
    assert_eq!(call(&app, order("k", r#"{"a":1,"b":2}"#)).await.status, 201);
    let reused = call(&app, order("k", r#"{"b": 2, "a": 1}"#)).await;
    assert_eq!((reused.status, &*reused.title()), (422, "Idempotency-Key is already used"));

    let app = orders(&calls).layer(layer(MemoryStore::new()).fingerprint(parsed));
    assert_eq!(call(&app, order("k", r#"{"a":1,"b":2}"#)).await.status, 201);
    let again = call(&app, order("k", r#"{"b": 2, "a": 1}"#)).await;
    assert!(again.is_replay());
    assert_eq!(call(&app, order("k", r#"{"a":1,"b":3}"#)).await.status, 422);
    let refused = call(&app, order("l", "{")).await;
    assert_eq!((refused.status, &*refused.title()), (400, "The order is no JSON"));
    assert_eq!(calls.get(), 2);
}

#[tokio::test]
async fn another_query_or_type_of_content_is_another_request() {
    let calls = Counter::default();
    let app = orders(&calls).layer(layer(MemoryStore::new()));
    assert_eq!(call(&app, order("k", "{}")).await.status, 201);
    let mut other = order("k", "{}");
    *other.uri_mut() = "/orders?draft=1".parse().unwrap();
    assert_eq!(call(&app, other).await.status, 422);
    let mut other = order("k", "{}");
    other.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(call(&app, other).await.status, 422);
    assert_eq!(calls.get(), 1);
}

#[tokio::test]
async fn a_key_is_one_clients_own_for_one_method_and_path() {
    let calls = Counter::default();
    let handler = {
        let calls = calls.clone();
        async move || created(calls.add())
    };
    let client = ByHeader::new(HeaderName::from_static("x-api-key"));
    let layer = IdempotencyLayer::new(MemoryStore::new(), client);
    let app = Router::new().route("/{*path}", any(handler)).layer(layer);
    let long = format!("/{}", "o".repeat(3000));
    let requests = [
        ("ada", Method::POST, "/orders"),
        ("bob", Method::POST, "/orders"),
        ("ada", Method::PATCH, "/orders"),
        ("ada", Method::POST, "/order"),
        ("ada", Method::POST, &*long),
    ];
    for is_replay in [false, true] {
        for (client, method, path) in &requests {
            let request = Request::builder().method(method).uri(*path);
            let request = request.header("x-api-key", *client).header("idempotency-key", "k");
            let answer = call(&app, request.body(Body::empty()).unwrap()).await;
            assert_eq!((answer.status, answer.is_replay()), (201, is_replay), "{client} {path}");
        }
    }
    assert_eq!(calls.get(), 5);
    let nobody = call(&app, order("k", "")).await;
    assert_eq!((nobody.status, calls.get()), (401, 5));
}

#[tokio::test]
async fn who_has_no_name_is_refused() {
    let nobody = |_: &Parts| Ok::<_, Problem>(String::new());
    let calls = Counter::default();
    let app = orders(&calls).layer(IdempotencyLayer::new(MemoryStore::new(), nobody));
    assert_eq!(call(&app, order("k", "")).await.status, 400);
    let broken = |_: &Parts| Err::<String, _>(Problem::new(99, "No status code of HTTP"));
    let app = orders(&calls).layer(IdempotencyLayer::new(MemoryStore::new(), broken));
    let refused = app.clone();
    let response = tower::ServiceExt::oneshot(refused, order("k", "")).await.unwrap();
    assert_eq!((response.status().as_u16(), calls.get()), (500, 0));
}

#[tokio::test]
async fn the_methods_are_the_services_to_choose() {
    let calls = Counter::default();
    let handler = {
        let calls = calls.clone();
        async move || created(calls.add())
    };
    let layer = layer(MemoryStore::new()).methods([Method::PUT]);
    let app = Router::new().route(PATH, any(handler)).layer(layer);
    for is_replay in [false, true] {
        assert!(!call(&app, order("k", "")).await.is_replay());
        let mut put = order("k", "");
        *put.method_mut() = Method::PUT;
        assert_eq!(call(&app, put).await.is_replay(), is_replay);
    }
    assert_eq!(calls.get(), 3);
}

#[tokio::test]
async fn records_are_where_and_for_as_long_as_the_options_say() {
    let kv = MemoryStore::new();
    let options = Idempotency::default().key_prefix("shop").ttl(Duration::from_secs(60));
    let calls = Counter::default();
    let layer = layer(kv.clone()).options(options);
    let key = format!("shop:{}", layer.id("ada", &Method::POST, PATH, "k"));
    let app = orders(&calls).layer(layer);
    call(&app, order("\"k\"", "")).await;
    let left = kv.ttl(key.as_bytes()).await.unwrap().and_then(Expiry::remaining);
    assert!(left.is_some_and(|left| left <= Duration::from_secs(60)), "{left:?}");
}

#[tokio::test]
async fn a_mistake_in_the_options_is_not_the_clients() {
    let calls = Counter::default();
    let options = Idempotency::default().ttl(Duration::ZERO);
    let app = orders(&calls).layer(layer(MemoryStore::new()).options(options));
    assert_eq!((call(&app, order("k", "")).await.status, calls.get()), (500, 0));
}

#[tokio::test]
async fn the_service_is_told_which_attempt_it_is() {
    for on_abandoned in [OnAbandoned::Rerun, OnAbandoned::Reject] {
        let handler = async |attempt: Extension<Attempt>| {
            assert!(!attempt.is_lost());
            let number = attempt.number();
            if number == 3 {
                return created(number);
            }
            let closed = StatusCode::SERVICE_UNAVAILABLE;
            (closed, Extension(NothingDone), number.to_string()).into_response()
        };
        let options = Idempotency::default().on_abandoned(on_abandoned);
        let app = app(handler).layer(layer(MemoryStore::new()).options(options).attempts(true));
        for number in ["1", "2"] {
            let failed = call(&app, order("k", "")).await;
            assert_eq!((failed.status, &failed.body[..]), (503, number.as_bytes()));
        }
        assert_eq!(call(&app, order("k", "")).await.status, 201);
        assert!(call(&app, order("k", "")).await.is_replay());
    }
}

#[tokio::test]
async fn a_service_says_what_its_requests_are_about() {
    let calls = Counter::default();
    let host = |request: &Parts| {
        let host = request.headers.get("host").map_or(&b""[..], |host| host.as_bytes());
        format!("{} {}", String::from_utf8_lossy(host), request.uri.path())
    };
    let app = orders(&calls).layer(layer(MemoryStore::new()).resource(host));
    for is_replay in [false, true] {
        for shop in ["one.example", "other.example"] {
            let mut request = order("k", "");
            request.headers_mut().insert("host", shop.parse().unwrap());
            assert_eq!(call(&app, request).await.is_replay(), is_replay, "{shop}");
        }
    }
    assert_eq!(calls.get(), 2);
}
