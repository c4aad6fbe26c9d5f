use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::HeaderMap;
use ::http::header::CONTENT_LENGTH;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pin_project_lite::pin_project;

use crate::http::problem::Problem;

pin_project! {
    /// The body of a request behind an [`IdempotencyLayer`](crate::IdempotencyLayer): as it was sent, or the
    /// bytes that the layer has read of it.
    ///
    /// Its errors are those of the body as it was sent.
    pub struct RequestBody<B> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<B> {
        AsSent { #[pin] body: B },
        Read { data: Bytes, trailers: Option<HeaderMap> },
    }
}

impl<B: Body<Data = Bytes>> RequestBody<B> {
    /// The body as it was sent.
    pub(crate) fn as_sent(body: B) -> Self {
        Self { state: State::AsSent { body } }
    }

    /// What was read.
    pub(crate) fn read(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { state: State::Read { data, trailers } }
    }
}

/// Reads a request's body to its end, without a copy where it comes in one piece.
///
/// # Errors
///
/// A problem with status code 413 where it is longer than `max` bytes, before it is read if its headers
/// say so; 400 where it ends too soon.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: B,
    max: usize,
) -> Result<(Bytes, Option<HeaderMap>), Problem>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>>,
{
    let bound = u64::try_from(max).unwrap_or(u64::MAX);
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.unwrap_or(0).max(body.size_hint().lower()) > bound {
        return Err(too_large());
    }
    match Limited::new(body, max).collect().await {
        Ok(whole) => {
            let trailers = whole.trailers().cloned();
            Ok((whole.to_bytes(), trailers))
        }
        Err(error) if is_about_length(&*error) => Err(too_large()),
        Err(_) => Err(Problem::new(400, "Bad Request")
            .with_detail("The content of the request could not be read to its end.")),
    }
}

/// Whether a limit has ended the body: ours, or one around the layer.
fn is_about_length(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source())
        .any(|error| error.is::<LengthLimitError>())
}

fn too_large() -> Problem {
    Problem::new(413, "Content Too Large")
}

impl<B: Body<Data = Bytes>> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().state.project() {
            Projected::AsSent { body } => body.poll_frame(cx),
            Projected::Read { data, trailers } => Poll::Ready(match data.is_empty() {
                false => Some(Ok(Frame::data(std::mem::take(data)))),
                true => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::AsSent { body } => body.is_end_stream(),
            State::Read { data, trailers } => data.is_empty() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::AsSent { body } => body.size_hint(),
            State::Read { data, .. } => {
                SizeHint::with_exact(u64::try_from(data.len()).unwrap_or(u64::MAX))
            }
        }
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    /// Which body it is. What is in it is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::AsSent { .. } => "AsSent",
            State::Read { .. } => "Read",
        };
        f.debug_tuple("RequestBody").field(&format_args!("{state}")).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use ::http::HeaderValue;
    use http_body_util::{Empty, Full, StreamBody};

    use super::*;

    type Piece = Result<Frame<Bytes>, std::io::Error>;

    fn pieces(pieces: Vec<Piece>) -> impl Body<Data = Bytes, Error = std::io::Error> {
        StreamBody::new(futures_util::stream::iter(pieces))
    }

    fn data(text: &'static str) -> Piece {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound_and_not_copied() {
        let body = Bytes::from(b"order".to_vec());
        let (read_bytes, _) = read(&HeaderMap::new(), Full::new(body.clone()), 5).await.unwrap();
        assert_eq!((read_bytes.as_ptr(), read_bytes.len()), (body.as_ptr(), 5));
        let refused = read(&HeaderMap::new(), Full::new(body), 4).await.unwrap_err();
        assert_eq!(refused.status_code(), 413);
        let streamed = pieces(vec![data("ord"), data(""), data("er")]);
        assert_eq!(read(&HeaderMap::new(), streamed, 5).await.unwrap().0, "order");
        let streamed =
            pieces(vec![data("ord"), data("er"), Err(std::io::Error::other("not asked"))]);
        assert_eq!(read(&HeaderMap::new(), streamed, 4).await.unwrap_err().status_code(), 413);
    }

    #[tokio::test]
    async fn what_is_announced_as_too_long_is_not_read() {
        let never = StreamBody::new(futures_util::stream::pending::<Piece>());
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("6"))]);
        assert_eq!(read(&headers, never, 5).await.unwrap_err().status_code(), 413);
    }

    #[tokio::test]
    async fn a_body_that_ends_too_soon_is_the_clients_fault() {
        let cut = pieces(vec![data("ord"), Err(std::io::Error::other("cut"))]);
        assert_eq!(read(&HeaderMap::new(), cut, 5).await.unwrap_err().status_code(), 400);
        let limited = Limited::new(pieces(vec![data("order")]), 4);
        assert_eq!(read(&HeaderMap::new(), limited, 5).await.unwrap_err().status_code(), 413);
    }

    #[tokio::test]
    async fn what_was_read_is_handed_on_with_its_trailers() {
        let sent = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("5"))]);
        let streamed = pieces(vec![data("ord"), data("er"), Ok(Frame::trailers(sent.clone()))]);
        let (data, trailers) = read(&HeaderMap::new(), streamed, 5).await.unwrap();
        let body = RequestBody::<Empty<Bytes>>::read(data, trailers);
        assert_eq!(body.size_hint().exact(), Some(5));
        let whole: Result<_, Infallible> = body.collect().await;
        let whole = whole.unwrap();
        assert_eq!(whole.trailers(), Some(&sent));
        assert_eq!(whole.to_bytes(), "order");
        assert!(RequestBody::<Empty<Bytes>>::read(Bytes::new(), None).is_end_stream());
    }
}
