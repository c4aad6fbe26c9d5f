//! Bodies that are handed on as they are: the very bytes, and not a copy of them.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use derp_kv_core::bytes::Bytes;
use derp_kv_core::{IdempotencyLayer, RequestBody};
use derp_kv_memory::MemoryStore;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::stage::{Ada, layer};

const PIECE: usize = 600;

/// Where the pieces of a body are, and how long.
async fn places<B: http_body::Body<Data = Bytes>>(body: B) -> Vec<(usize, usize)> {
    let mut body = std::pin::pin!(body);
    let mut places = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let data = frame.into_data().unwrap_or_default();
        places.push(place(&data));
    }
    places
}

fn place(data: &Bytes) -> (usize, usize) {
    (data.as_ptr().addr(), data.len())
}

fn guarded() -> IdempotencyLayer<MemoryStore, Ada> {
    layer(MemoryStore::new()).max_response(1000)
}

fn request<B>(body: B) -> Request<B> {
    Request::post("/orders").header("idempotency-key", "k").body(body).unwrap()
}

fn pieces(number: usize) -> Vec<Bytes> {
    (0..number).map(|at| Bytes::from(vec![u8::try_from(at).unwrap(); PIECE])).collect()
}

#[tokio::test]
async fn no_body_that_is_not_kept_is_copied() {
    // One piece, and several of which the second is too much, of a status that is kept and of one that
    // is not; and one piece that is kept.
    for (status, number) in [(500, 1), (500, 3), (200, 3), (200, 1)] {
        let sent = pieces(number);
        let expected: Vec<_> = sent.iter().map(place).collect();
        let answer = service_fn(move |_: Request<RequestBody<Full<Bytes>>>| {
            let frames =
                sent.clone().into_iter().map(|data| Ok::<_, Infallible>(Frame::data(data)));
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let service = ServiceBuilder::new().layer(guarded()).service(answer);
        let response = service.oneshot(request(Full::default())).await.unwrap();
        assert_eq!(places(response.into_body()).await, expected, "{status} {number}");
    }
}

#[tokio::test]
async fn a_body_that_is_known_to_be_too_long_is_not_copied() {
    let sent = Bytes::from(vec![7; 1001]);
    let expected = vec![place(&sent)];
    let answer = service_fn(move |_: Request<RequestBody<Full<Bytes>>>| {
        let response = Response::new(Full::new(sent.clone()));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let service = ServiceBuilder::new().layer(guarded()).service(answer);
    let response = service.oneshot(request(Full::default())).await.unwrap();
    assert_eq!(places(response.into_body()).await, expected);
}

#[tokio::test]
async fn a_request_in_one_piece_is_not_copied() {
    let sent = Bytes::from(vec![7; PIECE]);
    let expected = vec![place(&sent)];
    for key in ["k", ""] {
        let expected = expected.clone();
        let answer = service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
            let expected = expected.clone();
            async move {
                assert_eq!(places(request.into_body()).await, expected);
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let mut service = ServiceBuilder::new().layer(guarded().required(false)).service(answer);
        let mut request = request(Full::new(sent.clone()));
        if key.is_empty() {
            request.headers_mut().clear();
        }
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}
