use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use ::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use ::http::response::Parts;
use ::http::{HeaderMap, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, ErrorKind, Result};
use crate::http::tower::body::ResponseBody;
use crate::http::tower::kept_headers::KeptHeaders;
use crate::once::answer::Recorded as _;
use crate::once::options::Idempotency;
use crate::once::reply::Reply;

/// What Stripe marks replays with.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Makes a reply to keep of a handler's response, and gives back the response for the one who caused it.
///
/// A response whose status code is not kept is not read. Nor is one that is known to be too long, or a
/// stream of events, which must reach its client as it goes: of these, and of those that turn out to be too
/// long, to take too long, to fail or to end in trailers, only is kept that the work is done. What was read
/// is not copied then.
pub(crate) async fn keep<B>(
    response: Response<B>,
    options: &Idempotency,
    max: usize,
    timeout: Duration,
    headers: &KeptHeaders,
) -> (Reply, Response<ResponseBody<B>>)
where
    B: Body<Data = Bytes>,
{
    let (parts, body) = response.into_parts();
    let status_code = parts.status.as_u16();
    let reply = Reply::new(status_code, Bytes::new());
    if !reply.is_final(options) {
        return (reply, Response::from_parts(parts, ResponseBody::inner(body)));
    }
    if is_of_one_connection(&parts) || body.size_hint().lower() > length(max) {
        let response = Response::from_parts(parts, ResponseBody::inner(body));
        return (Reply::omitted(status_code), response);
    }
    match read(Box::pin(body), max, Instant::now().checked_add(timeout)).await {
        Ok(bytes) => {
            let mut reply = Reply::new(status_code, bytes.clone());
            for (name, value) in parts.headers.iter().filter(|(name, _)| headers.contains(name)) {
                reply = reply.header(name.as_str(), Bytes::copy_from_slice(value.as_bytes()));
            }
            (reply, Response::from_parts(parts, ResponseBody::whole(bytes)))
        }
        Err(body) => (Reply::omitted(status_code), Response::from_parts(parts, body)),
    }
}

/// Whether a response is no answer that another connection could be given: a switch of protocols, or events
/// as they happen.
fn is_of_one_connection(parts: &Parts) -> bool {
    let is_of_events = |value: &HeaderValue| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    parts.status.is_informational() || parts.headers.get(CONTENT_TYPE).is_some_and(is_of_events)
}

/// Reads a body to its end, or gives it back as if it had not been read.
async fn read<B>(
    mut body: Pin<Box<B>>,
    max: usize,
    until: Option<Instant>,
) -> Result<Bytes, ResponseBody<B>>
where
    B: Body<Data = Bytes>,
{
    let mut frames = VecDeque::new();
    let reading = fill(&mut frames, &mut body, max);
    let read = match until {
        // Whoever waits for the answer must not wait for a stream to end.
        Some(until) => timeout_at(until, reading).await.unwrap_or(Read::InPart),
        // A time that no clock reaches.
        None => reading.await,
    };
    let length = match read {
        Read::Whole(length) => length,
        Read::InPart => return Err(ResponseBody::resumed(frames, body)),
        Read::Failed(error) => return Err(ResponseBody::failed(frames, error)),
    };
    let mut data = frames.into_iter().filter_map(|frame| frame.into_data().ok());
    let (Some(first), second) = (data.next(), data.next()) else { return Ok(Bytes::new()) };
    let Some(second) = second else { return Ok(first) };
    let mut whole = BytesMut::with_capacity(length);
    for piece in [first, second].into_iter().chain(data) {
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// How far a body was read.
enum Read<E> {
    /// So many bytes are all.
    Whole(usize),
    InPart,
    Failed(E),
}

/// Reads frames with data, of no more than `max` bytes and one frame that is too much.
async fn fill<B>(
    frames: &mut VecDeque<Frame<Bytes>>,
    body: &mut Pin<Box<B>>,
    max: usize,
) -> Read<B::Error>
where
    B: Body<Data = Bytes>,
{
    let mut read = 0;
    loop {
        let frame = match body.frame().await {
            None => return Read::Whole(read),
            Some(Err(error)) => return Read::Failed(error),
            Some(Ok(frame)) => frame,
        };
        // A frame without data is no part of the body, and there may be any number of them.
        match frame.data_ref().map(Bytes::len) {
            Some(0) => {}
            Some(length) if length <= max - read => {
                read += length;
                frames.push_back(frame);
            }
            _ => {
                frames.push_back(frame);
                return Read::InPart;
            }
        }
    }
}

/// Makes a response of a reply that was kept.
///
/// # Errors
///
/// [`Corrupt`](ErrorKind::Corrupt) where the record holds what no response can have. Others than this layer may
/// have written it.
pub(crate) fn replay<B>(reply: Reply, headers: &KeptHeaders) -> Result<Response<ResponseBody<B>>>
where
    B: Body<Data = Bytes>,
{
    let status = StatusCode::from_u16(reply.status_code).ok();
    let status = status.filter(|status| !status.is_informational());
    let status = status.ok_or_else(|| corrupt("the record's status code is none of an answer"))?;
    let replayed = headers_of(&reply, headers);
    let replayed = replayed.ok_or_else(|| corrupt("a header of the record is none of HTTP"))?;
    let mut response = Response::new(ResponseBody::whole(reply.body));
    *response.status_mut() = status;
    *response.headers_mut() = replayed;
    Ok(response)
}

fn headers_of(reply: &Reply, headers: &KeptHeaders) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in &reply.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(value.clone()).ok()?;
        if headers.contains(&name) {
            map.try_append(name, value).ok()?;
        }
    }
    map.try_insert(REPLAYED, HeaderValue::from_static("true")).ok()?;
    Some(map)
}

fn corrupt(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
