use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of a layer's response: that of the inner service, or one that the layer gives instead.
    ///
    /// Its errors are those of the inner body.
    pub struct ResponseBody<B>
    where
        B: Body,
    {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<B>
    where
        B: Body,
    {
        Inner { #[pin] body: B },
        Whole { bytes: Bytes },
        Resumed { read: VecDeque<Frame<Bytes>>, rest: Pin<Box<B>> },
        Failed { read: VecDeque<Frame<Bytes>>, error: Option<B::Error> },
    }
}

impl<B: Body<Data = Bytes>> ResponseBody<B> {
    /// The body of the inner service, as it is.
    pub fn inner(body: B) -> Self {
        Self { state: State::Inner { body } }
    }

    /// A body of a layer's own.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { state: State::Whole { bytes: bytes.into() } }
    }

    /// What was read of the inner body, and then the rest of it. A body that was read is pinned.
    pub fn resumed(read: impl Into<VecDeque<Frame<Bytes>>>, rest: Pin<Box<B>>) -> Self {
        Self { state: State::Resumed { read: read.into(), rest } }
    }

    /// What was read of the inner body, and then the error that it ended with.
    pub fn failed(read: impl Into<VecDeque<Frame<Bytes>>>, error: B::Error) -> Self {
        Self { state: State::Failed { read: read.into(), error: Some(error) } }
    }
}

impl<B: Body> Default for ResponseBody<B> {
    /// An empty body, which layers outside need for responses of their own.
    fn default() -> Self {
        Self { state: State::Whole { bytes: Bytes::new() } }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().state.project() {
            Projected::Inner { body } => body.poll_frame(cx),
            Projected::Whole { bytes } if bytes.is_empty() => Poll::Ready(None),
            Projected::Whole { bytes } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Projected::Resumed { read, rest } => match read.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => rest.as_mut().poll_frame(cx),
            },
            Projected::Failed { read, error } => match read.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => Poll::Ready(error.take().map(Err)),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Inner { body } => body.is_end_stream(),
            State::Whole { bytes } => bytes.is_empty(),
            State::Resumed { read, rest } => read.is_empty() && rest.is_end_stream(),
            State::Failed { read, error } => read.is_empty() && error.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Inner { body } => body.size_hint(),
            State::Whole { bytes } => SizeHint::with_exact(length(bytes)),
            State::Resumed { read, rest } => {
                let (read, rest) = (data_length(read), rest.size_hint());
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(read));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
                    hint.set_upper(upper);
                }
                hint
            }
            // How long the body would have been is not known.
            State::Failed { read, .. } => {
                let mut hint = SizeHint::new();
                hint.set_lower(data_length(read));
                hint
            }
        }
    }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn data_length(frames: &VecDeque<Frame<Bytes>>) -> u64 {
    frames.iter().filter_map(Frame::data_ref).map(length).fold(0, u64::saturating_add)
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    /// Which body it is. What is in it is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Inner { .. } => "Inner",
            State::Whole { .. } => "Whole",
            State::Resumed { .. } => "Resumed",
            State::Failed { .. } => "Failed",
        };
        f.debug_tuple("ResponseBody").field(&format_args!("{state}")).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, Full};

    use super::*;

    /// A body of one frame that does not know its length, and a failure.
    struct Fails(bool);

    impl Body for Fails {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            let first = !std::mem::replace(&mut self.0, true);
            Poll::Ready(Some(if first { Ok(Frame::data("one".into())) } else { Err("cut") }))
        }
    }

    fn frames(texts: &[&'static str]) -> VecDeque<Frame<Bytes>> {
        texts.iter().map(|text| Frame::data(Bytes::from_static(text.as_bytes()))).collect()
    }

    fn full(text: &'static str) -> Full<Bytes> {
        Full::new(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn each_body_says_its_length_and_its_end() {
        let bodies = [
            (ResponseBody::inner(full("answer")), "answer"),
            (ResponseBody::whole("answer"), "answer"),
            (ResponseBody::resumed(frames(&["an", "s"]), Box::pin(full("wer"))), "answer"),
            (ResponseBody::resumed(frames(&["answer"]), Box::pin(full(""))), "answer"),
            (ResponseBody::inner(full("")), ""),
            (ResponseBody::whole(""), ""),
            (ResponseBody::resumed(frames(&[]), Box::pin(full(""))), ""),
        ];
        for (mut body, text) in bodies {
            let mut left = text.len() as u64;
            let mut read = Vec::new();
            while left > 0 {
                assert!(!body.is_end_stream(), "{body:?}");
                assert_eq!(body.size_hint().exact(), Some(left), "{body:?}");
                let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
                left -= frame.len() as u64;
                read.extend(frame);
            }
            assert_eq!(read, text.as_bytes());
            assert!(body.is_end_stream(), "{body:?}");
            assert_eq!(body.size_hint().exact(), Some(0), "{body:?}");
            assert!(body.frame().await.is_none(), "{body:?}");
        }
    }

    #[tokio::test]
    async fn an_error_follows_what_was_read() {
        let resumed = ResponseBody::resumed(frames(&["zero"]), Box::pin(Fails(false)));
        let failed = ResponseBody::<Fails>::failed(frames(&["zero", "one"]), "cut");
        for mut body in [resumed, failed] {
            assert_eq!(body.size_hint().upper(), None);
            for text in ["zero", "one"] {
                let frame = body.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), text);
                assert!(!body.is_end_stream());
            }
            assert_eq!(body.frame().await.unwrap().unwrap_err(), "cut");
        }
    }

    #[tokio::test]
    async fn trailers_that_were_read_are_handed_on() {
        let mut trailers = ::http::HeaderMap::new();
        trailers.insert("checksum", "7".parse().unwrap());
        let mut read = frames(&["answer"]);
        read.push_back(Frame::trailers(trailers.clone()));
        let body = ResponseBody::resumed(read, Box::pin(full("")));
        assert_eq!(body.size_hint().exact(), Some(6));
        let whole: Result<_, Infallible> = body.collect().await;
        assert_eq!(whole.unwrap().trailers(), Some(&trailers));
    }
}
