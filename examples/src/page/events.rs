//! `GET /page/events`: what happens, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use derp_kv_core::Problem;
use futures_util::stream::{self, Stream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

use super::Page;
use super::feed::{Feed, Message};
use crate::error::ApiError;

/// After so long without an event the browser gets a comment, so that it knows a lost connection from a
/// quiet one, and so does what is between.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// When a browser that lost its connection comes back.
const RETRY: Duration = Duration::from_secs(1);

/// `snapshot` with all that happened, and then an event for each change. Who reads too slowly gets another
/// snapshot in the place of what it has missed.
pub(crate) async fn stream(Extension(page): Extension<Page>) -> Result<Response, ApiError> {
    let closed = page.0.closed.subscribe();
    let slot = page.0.streams.clone().try_acquire_owned();
    let slot = slot.ok().filter(|_| !*closed.borrow()).ok_or_else(|| {
        let problem = Problem::new(503, "Service Unavailable").with_retry_after(5 * RETRY);
        ApiError::from(problem.with_detail("too many look at the page"))
    })?;
    page.look_at_all().await;
    let (snapshot, messages) = page.0.feed.subscribe();
    let feed = page.0.feed.clone();
    let reader = Reader { feed, next: Some(snapshot), messages, closed, _slot: slot };
    let events = Sse::new(reader.events()).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    // A proxy that collects an answer before it passes it on would make the page late.
    let unbuffered =
        [(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))];
    Ok((unbuffered, events).into_response())
}

/// Somebody who looks at the page. Nothing is sent before it has read what came before.
struct Reader {
    feed: Arc<Feed>,
    /// The snapshot with which it begins.
    next: Option<Message>,
    messages: broadcast::Receiver<Message>,
    closed: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
}

impl Reader {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut reader| {
            let message = reader.message().await?;
            let event = Event::default().event(message.name).data(&*message.json);
            let event = if message.name == "snapshot" { event.retry(RETRY) } else { event };
            Some((Ok(event), reader))
        })
    }

    /// None where the page is closed.
    async fn message(&mut self) -> Option<Message> {
        if let Some(snapshot) = self.next.take() {
            return Some(snapshot);
        }
        tokio::select! {
                biased;
                _ = self.closed.wait_for(|closed| *closed) => None,
                message = self.messages.recv() => match message {
                    Ok(message) => Some(message),
                    Err(RecvError::Lagged(_)) => {
        let (snapshot, messages) = self.feed.subscribe();
                        self.messages = messages;
                        Some(snapshot)
                    }
                    Err(RecvError::Closed) => None,
                },
            }
    }
}
