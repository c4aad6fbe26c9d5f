//! Requests and responses that come in pieces, are too long, never end or end too soon.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Response, Version};
use derp_kv_core::Idempotency;
use derp_kv_core::bytes::Bytes;
use derp_kv_memory::MemoryStore;
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tower::ServiceExt;

use crate::stage::{
    Answer, Client, Counter, Pieces, Server, app, call, counting_ends, layer, order, piece,
    streamed,
};

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// An app that takes any order, and answers with its length.
fn measured(calls: &Counter) -> Router {
    let calls = calls.clone();
    let handler = async move |body: Bytes| {
        calls.add();
        body.len().to_string()
    };
    app(handler).layer(layer(MemoryStore::new()).max_request(10))
}

#[tokio::test]
async fn a_request_in_pieces_is_the_same_as_in_one() {
    for version in BOTH {
        let calls = Counter::default();
        let server = Server::start(measured(&calls)).await;
        let mut client = server.client(version).await;
        let (pieces, body) = streamed();
        for data in ["01234", "", "56789"] {
            pieces.send(piece(data)).unwrap();
        }
        drop(pieces);
        let first = client.answer(order("k", body)).await;
        let again = client.answer(order("k", "0123456789")).await;
        assert_eq!((first.body, first.status), (again.body.clone(), 200));
        assert_eq!((&again.body[..], again.is_replay(), calls.get()), (&b"10"[..], true, 1));
    }
}

#[tokio::test]
async fn a_request_that_is_too_long_is_refused_before_it_ends() {
    for version in BOTH {
        let calls = Counter::default();
        let server = Server::start(measured(&calls)).await;
        let mut client = server.client(version).await;
        // It never ends.
        let (pieces, body) = streamed();
        pieces.send(piece("01234567890")).unwrap();
        let refused = client.answer(order("k", body)).await;
        assert_eq!((refused.status, &*refused.title()), (413, "Content Too Large"));
        let mut client = server.client(version).await;
        assert_eq!(client.answer(order("k", "0123456789")).await.status, 200);
        assert_eq!(calls.get(), 1);
    }
}

/// Sends the head of a request, and what of its content the test says.
async fn raw(server: &Server, content_length: usize, content: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "POST /orders HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\n\
         content-type: application/json\r\ncontent-length: {content_length}\r\n\r\n{content}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_request_that_is_announced_as_too_long_is_not_read() {
    let calls = Counter::default();
    let server = Server::start(measured(&calls)).await;
    let mut stream = raw(&server, 11, "").await;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
    assert_eq!(calls.get(), 0);
}

#[tokio::test]
async fn a_request_that_ends_too_soon_leaves_nothing_behind() {
    let (calls, ends) = (Counter::default(), Counter::default());
    let server = Server::start(counting_ends(measured(&calls), &ends)).await;
    drop(raw(&server, 10, "01234").await);
    ends.until(1).await;

    let mut client = server.client(Version::HTTP_2).await;
    let (pieces, body) = streamed();
    pieces.send(piece("01234")).unwrap();
    pieces.send(Err(std::io::Error::other("cut"))).unwrap();
    // The client breaks its own request off, and may hear that before it hears what the server says.
    let _ = client.try_send(order("k", body)).await;
    ends.until(2).await;

    let (pieces, body) = streamed();
    pieces.send(Err(std::io::Error::other("cut"))).unwrap();
    assert_eq!(call(&measured(&calls), order("k", body)).await.status, 400);
    assert_eq!(calls.get(), 0);
    let whole = server.client(Version::HTTP_11).await.answer(order("k", "0123456789")).await;
    assert_eq!((whole.is_replay(), calls.get()), (false, 1));
}

/// An app that answers with a body that the test sends piece by piece.
struct Streaming {
    calls: Counter,
    server: Server,
    pieces: mpsc::UnboundedReceiver<Pieces>,
}

impl Streaming {
    async fn start(status: u16, content_type: &'static str) -> Self {
        let calls = Counter::default();
        let (open, pieces) = mpsc::unbounded_channel();
        let handler = {
            let calls = calls.clone();
            async move || {
                calls.add();
                let (pieces, body) = streamed();
                open.send(pieces).unwrap();
                let response = Response::builder().status(status);
                response.header("content-type", content_type).body(body).unwrap()
            }
        };
        let app = app(handler).layer(layer(MemoryStore::new()).max_response(10));
        Self { calls, server: Server::start(app).await, pieces }
    }

    /// The body of the next answer.
    async fn pieces(&mut self) -> Pieces {
        self.pieces.recv().await.unwrap()
    }

    async fn retry(&self, version: Version) -> Answer {
        self.server.client(version).await.answer(order("k", "")).await
    }

    /// The work was done once, and its answer is not there.
    async fn is_done_and_not_kept(&self, version: Version) {
        for _ in 0..2 {
            let again = self.retry(version).await;
            assert_eq!(again.status, 409);
            assert_eq!(again.title(), "The request is done and its answer was not kept");
            assert_eq!(again.problem()["answer-status"], 200);
        }
        assert_eq!(self.calls.get(), 1);
    }
}

/// Sends an order, whose answer the test sends meanwhile.
async fn ask(client: &mut Client) -> Response<Incoming> {
    client.send(order("k", "")).await
}

async fn next_data(response: &mut Response<Incoming>) -> Bytes {
    response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn an_answer_in_pieces_is_kept_as_one() {
    for version in BOTH {
        let mut app = Streaming::start(200, "text/plain").await;
        let mut client = app.server.client(version).await;
        let (first, ()) = tokio::join!(ask(&mut client), async {
            let pieces = app.pieces().await;
            for data in ["01234", "", "56789"] {
                pieces.send(piece(data)).unwrap();
            }
        });
        assert_eq!(Answer::of(first).await.body, "0123456789");
        let again = app.retry(version).await;
        assert_eq!((&again.body[..], again.is_replay()), (&b"0123456789"[..], true));
        assert_eq!(app.calls.get(), 1);
    }
}

#[tokio::test]
async fn an_answer_without_end_reaches_its_client_and_is_not_kept() {
    for version in BOTH {
        let mut app = Streaming::start(200, "text/plain").await;
        let mut client = app.server.client(version).await;
        let asked = async {
            let mut response = ask(&mut client).await;
            // The pieces from before and after the one that was too much, none left out.
            let mut read = Vec::new();
            while read.len() < 60 {
                read.extend(next_data(&mut response).await);
            }
            read
        };
        let (read, pieces) = tokio::join!(asked, async {
            let pieces = app.pieces().await;
            for number in 10..40 {
                pieces.send(piece(number.to_string())).unwrap();
            }
            pieces
        });
        let expected: String = (10..40).map(|number| number.to_string()).collect();
        assert_eq!(read, expected.as_bytes());
        app.is_done_and_not_kept(version).await;
        drop(pieces);
    }
}

#[tokio::test]
async fn an_answer_that_fails_half_way_is_not_kept() {
    for version in BOTH {
        let mut app = Streaming::start(200, "text/plain").await;
        let mut client = app.server.client(version).await;
        let asked = async {
            let response = client.try_send(order("k", "")).await;
            // Whatever the client hears of it, it is not a whole answer.
            assert!(match response {
                Ok(response) => response.into_body().collect().await.is_err(),
                Err(_) => true,
            });
        };
        tokio::join!(asked, async {
            let pieces = app.pieces().await;
            pieces.send(piece("0123")).unwrap();
            pieces.send(Err(std::io::Error::other("cut"))).unwrap();
        });
        app.is_done_and_not_kept(version).await;
    }
}

#[tokio::test]
async fn trailers_reach_their_client_and_are_not_kept() {
    let mut app = Streaming::start(200, "text/plain").await;
    let mut client = app.server.client(Version::HTTP_2).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", "7".parse().unwrap());
    let (first, ()) = tokio::join!(ask(&mut client), async {
        let pieces = app.pieces().await;
        pieces.send(piece("0123")).unwrap();
        pieces.send(Ok(Frame::trailers(trailers.clone()))).unwrap();
    });
    let whole = first.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers(), Some(&trailers));
    assert_eq!(whole.to_bytes(), "0123");
    app.is_done_and_not_kept(Version::HTTP_2).await;
}

#[tokio::test]
async fn events_reach_their_client_as_they_happen() {
    for content_type in ["text/event-stream", "Text/Event-Stream; charset=utf-8"] {
        for version in BOTH {
            let mut app = Streaming::start(200, content_type).await;
            let mut client = app.server.client(version).await;
            let (mut first, pieces) = tokio::join!(ask(&mut client), app.pieces());
            for event in ["data: 1\n\n", "data: 2\n\n"] {
                pieces.send(piece(event)).unwrap();
                assert_eq!(next_data(&mut first).await, event);
            }
            app.is_done_and_not_kept(version).await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_frees_the_key_is_not_read() {
    for version in BOTH {
        let mut app = Streaming::start(503, "text/plain").await;
        for number in 1..=2 {
            let mut client = app.server.client(version).await;
            let (mut first, pieces) = tokio::join!(ask(&mut client), app.pieces());
            assert_eq!((first.status().as_u16(), app.calls.get()), (503, number));
            pieces.send(piece("much more than is kept")).unwrap();
            assert_eq!(next_data(&mut first).await, "much more than is kept");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_known_to_be_too_long_is_not_kept() {
    for version in BOTH {
        let calls = Counter::default();
        let handler = {
            let calls = calls.clone();
            async move || {
                calls.add();
                "0123456789a"
            }
        };
        let app = app(handler).layer(layer(MemoryStore::new()).max_response(10));
        let server = Server::start(app).await;
        let mut client = server.client(version).await;
        let first = client.answer(order("k", "")).await;
        assert_eq!((first.status, &first.body[..]), (200, &b"0123456789a"[..]));
        let again = client.answer(order("k", "")).await;
        assert_eq!(
            (again.status, &again.problem()["answer-status"], calls.get()),
            (409, &200.into(), 1)
        );
    }
}

#[tokio::test]
async fn a_switch_of_protocols_is_neither_kept_nor_replayed() {
    for keeps_all in [false, true] {
        let options = Idempotency::default();
        let options = if keeps_all { options.keep_all() } else { options };
        let handler = async || Response::builder().status(101).body(Body::empty()).unwrap();
        let app = app(handler).layer(layer(MemoryStore::new()).options(options));
        assert_eq!(call(&app, order("k", "")).await.status, 101);
        let again = call(&app, order("k", "")).await;
        assert!(!again.is_replay());
        assert_eq!(again.status, if keeps_all { 409 } else { 101 });
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_too_long_reaches_its_client_as_it_comes() {
    let (open, mut opened) = mpsc::unbounded_channel();
    let calls = Counter::default();
    let handler = {
        let calls = calls.clone();
        async move || {
            calls.add();
            let (pieces, body) = streamed();
            pieces.send(piece("0123")).unwrap();
            open.send(pieces).unwrap();
            body
        }
    };
    let layer = layer(MemoryStore::new()).response_timeout(Duration::from_secs(3));
    let app = app(handler).layer(layer);
    let mut first = app.clone().oneshot(order("k", "")).await.unwrap();
    let pieces = opened.recv().await.unwrap();
    for expected in ["0123", "4567"] {
        let data = first.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, expected);
        pieces.send(piece("4567")).unwrap();
    }
    let again = call(&app, order("k", "")).await;
    assert_eq!((again.status, &again.problem()["answer-status"]), (409, &200.into()));
    assert_eq!(calls.get(), 1);
}

#[tokio::test]
async fn an_answer_may_be_given_all_the_time_there_is() {
    let layer = layer(MemoryStore::new()).response_timeout(Duration::MAX);
    let app = app(async || "done").layer(layer);
    for is_replay in [false, true] {
        assert_eq!(call(&app, order("k", "")).await.is_replay(), is_replay);
    }
}
