//! `docs/http.md` lists the examples of the draft and of Stripe, with what the layer answers.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse;
use axum::routing::any;
use derp_kv_core::bytes::Bytes;
use derp_kv_core::{ErrorKind, Idempotency, IdempotencyLayer, KvStore, OnAbandoned, Problem};
use derp_kv_memory::MemoryStore;
use tower_http::catch_panic::CatchPanicLayer;

use crate::common::refusing;
use crate::stage::{Ada, Answer, Counter, PATH, app, call, created, id, layer};

const BEGIN: &str = "<!-- idempotency:begin -->\n";
const END: &str = "<!-- idempotency:end -->";

const UUID: &str = r#""8e03978e-40d5-43e8-bc93-6894a57f9324""#;
const STRIPES: &str = "KG5LxwFBepaKHyUD";

/// What the table says of an answer.
fn cell(answer: &Answer) -> String {
    let mut cell = answer.status.to_string();
    let is_problem = answer.header("content-type") == Some("application/problem+json");
    if is_problem {
        cell += &format!(" {}", answer.title());
    }
    if answer.header("retry-after").is_some() {
        cell += ", `Retry-After`";
    }
    if answer.is_replay() {
        cell += ", a replay";
    }
    cell
}

/// A service that does what its request asks for in the header `do`, around which the layer is.
fn service<S: KvStore + Clone>(layer: IdempotencyLayer<S, Ada>) -> Router {
    let calls = Counter::default();
    let handler = async move |request: Request<Body>| {
        let number = calls.add();
        match request.headers().get("do").map(|what| what.to_str().unwrap()) {
            None => created(number),
            Some("panic") => panic!("on purpose"),
            Some("much") => "x".repeat(300 * 1024).into_response(),
            Some(status) => StatusCode::from_bytes(status.as_bytes()).unwrap().into_response(),
        }
    };
    Router::new().route(PATH, any(handler)).layer(layer).layer(CatchPanicLayer::new())
}

fn plain() -> Router {
    service(layer(MemoryStore::new()))
}

fn with(options: Idempotency) -> Router {
    service(layer(MemoryStore::new()).options(options))
}

fn post(key: &str) -> Request<Body> {
    Request::post(PATH).header("idempotency-key", key).body(Body::from("{}")).unwrap()
}

fn doing(what: &str) -> Request<Body> {
    let mut request = post(UUID);
    request.headers_mut().insert("do", what.parse().unwrap());
    request
}

/// Sends one after the other, and shows the last answer.
async fn last<const N: usize>(app: Router, requests: [Request<Body>; N]) -> String {
    let mut shown = String::new();
    for request in requests {
        shown = cell(&call(&app, request).await);
    }
    shown
}

async fn rows_of_the_draft() -> Vec<(&'static str, String)> {
    let unkeyed = Request::post(PATH).body(Body::empty()).unwrap();
    let mut twice = post(UUID);
    twice.headers_mut().append("idempotency-key", UUID.parse().unwrap());
    let mut other = post(UUID);
    *other.body_mut() = Body::from("another payload");
    let entered = Counter::default();
    let hanging = {
        let entered = entered.clone();
        let handler = async move || {
            entered.add();
            std::future::pending::<()>().await
        };
        app(handler).layer(layer(MemoryStore::new()))
    };
    let first = tokio::spawn({
        let app = hanging.clone();
        async move { call(&app, post(UUID)).await }
    });
    entered.until(1).await;
    let during = last(hanging, [post(UUID)]).await;
    first.abort();
    vec![
        ("a first request", last(plain(), [post(UUID)]).await),
        ("a retry after it was carried out", last(plain(), [post(UUID), post(UUID)]).await),
        ("a retry while it is carried out", during),
        ("a retry of one that came to an error", last(plain(), [doing("404"), doing("404")]).await),
        ("a request without a key", last(plain(), [unkeyed]).await),
        ("a request with two keys", last(plain(), [twice]).await),
        ("the key of another payload", last(plain(), [post(UUID), other]).await),
    ]
}

async fn rows_of_stripe() -> Vec<(&'static str, String)> {
    let quoted = format!("{STRIPES:?}");
    let (longest, too_long) = ("k".repeat(255), "k".repeat(256));
    let get = Request::get(PATH).header("idempotency-key", STRIPES).body(Body::empty()).unwrap();
    let by_account = |request: &Parts| -> Result<String, Problem> {
        Ok(request.headers["authorization"].to_str().unwrap().to_owned())
    };
    let of = |account: &str| {
        let mut request = post(STRIPES);
        request.headers_mut().insert("authorization", account.parse().unwrap());
        request
    };
    let accounts = service(IdempotencyLayer::new(MemoryStore::new(), by_account as Ada));
    let keep_all = with(Idempotency::default().keep_all());
    vec![
        ("a retry whose key has no quotes", last(plain(), [post(STRIPES), post(STRIPES)]).await),
        ("the same key in quotes", last(plain(), [post(STRIPES), post(&quoted)]).await),
        ("a key of 255 characters", last(plain(), [post(&longest)]).await),
        ("a key of 256 characters", last(plain(), [post(&too_long)]).await),
        ("a `GET` with a key", last(plain(), [get]).await),
        ("another account with the same key", last(accounts, [of("a"), of("b")]).await),
        ("a retry of one that came to a 500", last(plain(), [doing("500"), doing("500")]).await),
        ("the same with `keep_all`", last(keep_all, [doing("500"), doing("500")]).await),
        ("a retry of one that was not valid", last(plain(), [doing("400"), doing("400")]).await),
    ]
}

async fn rows_beside_them() -> Vec<(&'static str, String)> {
    let mut long = post(UUID);
    *long.body_mut() = Body::from(vec![b' '; 64 * 1024 + 1]);
    let reject = || with(Idempotency::default().on_abandoned(OnAbandoned::Reject));
    let broken = MemoryStore::new();
    let key = format!("derp:idempotency:{}", id("k"));
    broken.set(key.as_bytes(), &Bytes::from("{"), None).await.unwrap();
    let down = refusing(&MemoryStore::new(), ErrorKind::Unavailable);
    vec![
        // What the service goes by is no part of the request's fingerprint.
        ("a retry of one that panicked", last(plain(), [doing("panic"), post(UUID)]).await),
        (
            "the same with `OnAbandoned::Reject`",
            last(reject(), [doing("panic"), doing("panic")]).await,
        ),
        (
            "a retry of one whose answer is too long",
            last(plain(), [doing("much"), doing("much")]).await,
        ),
        ("a request that is too long", last(plain(), [long]).await),
        ("any request while the store is down", last(service(layer(down)), [post(UUID)]).await),
        ("a request whose record is broken", last(service(layer(broken)), [post("k")]).await),
    ]
}

#[tokio::test(start_paused = true)]
async fn the_table_is_what_the_layer_answers() {
    let mut current = "| of | request | answer |\n|---|---|---|\n".to_owned();
    for (source, rows) in [
        ("the draft", rows_of_the_draft().await),
        ("Stripe", rows_of_stripe().await),
        ("neither", rows_beside_them().await),
    ] {
        for (request, answer) in rows {
            current += &format!("| {source} | {request} | {answer} |\n");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/http.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page marks where the table begins");
    let (shown, after) = rest.split_once(END).expect("the page marks where the table ends");
    if std::env::var_os("UPDATE_README").is_some() {
        let updated = [before, BEGIN, "\n", &current, "\n", END, after].concat();
        std::fs::write(&path, updated).unwrap();
    } else {
        let message =
            "the table in docs/http.md is another one; run this test with UPDATE_README=1";
        assert_eq!(shown.trim(), current.trim(), "{message}");
    }
}
