//! What a retry gets.

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Request, Response, Version};
use axum::routing::post;
use derp_kv_conformance::{CountingStore, Counts, Operation};
use derp_kv_core::IdempotencyLayer;
use derp_kv_core::bytes::Bytes;
use derp_kv_memory::MemoryStore;

use crate::stage::{Answer, Counter, Server, call, created, layer, order};

/// A handler whose answer has all that a replay must keep, and some that it must not.
fn answer(body: Bytes) -> Response<Body> {
    Response::builder()
        .status(201)
        .header("content-type", "application/json")
        .header("link", "</orders/1>; rel=self")
        .header("set-cookie", "session=ada")
        .header("location", "/orders/1")
        .header("link", "</orders>; rel=collection")
        .header("link", &b"<caf\xe9>; rel=up"[..])
        .header("etag", "\"1\"")
        .header("x-request-id", "7")
        .header("vary", "cookie")
        .body(body.into())
        .unwrap()
}

#[tokio::test]
async fn a_replay_is_the_first_answer_byte_for_byte_without_what_is_one_clients() {
    let bodies: [&[u8]; 4] =
        [b"{\"total\": 1.10,  \"b\":1}", b"\x00\xff\xfe not text", b"", b" {} "];
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let kv = CountingStore::new(MemoryStore::new());
        let calls = Counter::default();
        let handler = {
            let calls = calls.clone();
            move |body: Bytes| async move {
                calls.add();
                answer(body)
            }
        };
        let app = Router::new().route("/orders", post(handler)).layer(layer(kv.clone()));
        let server = Server::start(app).await;
        let mut client = server.client(version).await;
        for (at, body) in bodies.into_iter().enumerate() {
            let key = format!("k{at}");
            let first = client.answer(order(&key, Bytes::from_static(body))).await;
            assert_eq!(kv.take().total(), 5);
            let again = client.answer(order(&key, Bytes::from_static(body))).await;
            assert_eq!(kv.take(), Counts::from([(Operation::Get, 1)]));
            assert_eq!(calls.get(), u32::try_from(at + 1).unwrap());

            assert!(!first.is_replay() && again.is_replay());
            assert_eq!((first.status, again.status), (201, 201));
            assert_eq!((&first.body[..], &again.body[..]), (body, body));
            let links: [&[u8]; 3] =
                [b"</orders/1>; rel=self", b"</orders>; rel=collection", b"<caf\xe9>; rel=up"];
            assert_eq!((first.all("link"), again.all("link")), (links.to_vec(), links.to_vec()));
            for name in ["content-type", "location", "etag"] {
                assert!(first.header(name).is_some());
                assert_eq!(first.header(name), again.header(name), "{name}");
            }
            for name in ["set-cookie", "x-request-id", "vary"] {
                assert!(first.header(name).is_some(), "{name}");
                assert_eq!(again.header(name), None, "{name}");
            }
        }
    }
}

/// An app that numbers its orders.
fn orders(calls: &Counter) -> Router {
    let calls = calls.clone();
    Router::new().route("/orders", post(async move || created(calls.add())))
}

#[tokio::test]
async fn a_key_is_the_same_in_quotes_and_a_clients_own() {
    let calls = Counter::default();
    let app = orders(&calls).layer(layer(MemoryStore::new()));
    let first = call(&app, order("k", "{}")).await;
    let again = call(&app, order("\"k\";v=1", "{}")).await;
    assert_eq!((first.body, calls.get()), (again.body.clone(), 1));
    let other = call(&app, order("l", "{}")).await;
    assert_ne!(other.body, again.body);
}

#[tokio::test]
async fn requests_that_need_no_key_pass() {
    let calls = Counter::default();
    let app = orders(&calls).layer(layer(MemoryStore::new()).required(false));
    for _ in 0..2 {
        let request = Request::post("/orders").body(Body::empty()).unwrap();
        assert_eq!(call(&app, request).await.status, 201);
        let request = Request::get("/orders").header("idempotency-key", "").body(Body::empty());
        assert_eq!(call(&app, request.unwrap()).await.status, 405);
    }
    assert_eq!(calls.get(), 2);
    let malformed: Answer = call(&app, order("", "")).await;
    assert_eq!((malformed.status, &*malformed.title()), (400, "Idempotency-Key is malformed"));
    let app = orders(&calls).layer(layer(MemoryStore::new()));
    let request = Request::post("/orders").body(Body::empty()).unwrap();
    let missing = call(&app, request).await;
    assert_eq!((missing.status, &*missing.title()), (400, "Idempotency-Key is missing"));
}

#[tokio::test]
async fn of_requests_at_the_same_time_one_is_carried_out() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (calls, arrived) = (Counter::default(), Counter::default());
        let handler = {
            let (calls, arrived) = (calls.clone(), arrived.clone());
            async move || {
                // Both have said who they are, and have the same key.
                arrived.until(2).await;
                created(calls.add())
            }
        };
        let client_id = move |_: &Parts| {
            arrived.add();
            Ok("ada".to_owned())
        };
        let layer = IdempotencyLayer::new(MemoryStore::new(), client_id);
        let server =
            Server::start(Router::new().route("/orders", post(handler)).layer(layer)).await;
        let (mut one, mut other) = (server.client(version).await, server.client(version).await);
        let (one, other) =
            tokio::join!(one.answer(order("k", "{}")), other.answer(order("k", "{}")));
        assert_eq!((one.status, one.body), (201, other.body.clone()));
        assert_eq!((other.status, calls.get()), (201, 1));
    }
}
