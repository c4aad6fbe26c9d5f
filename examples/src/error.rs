//! What a client is told when a request fails.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use derp_kv_core::{Error, ErrorKind};
use serde_json::json;

use crate::database::QueryFailed;

/// An answer that is not a success: `{"error": "...", "message": "..."}`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {message}")]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<u64>,
}

impl ApiError {
    /// An answer with `status`; `code` is for programs and `message` for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// The request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The service is at fault; what went wrong is in its log.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request failed")
    }

    /// Tells the client to wait so many seconds.
    #[must_use]
    pub fn retry_after_secs(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl From<Error> for ApiError {
    /// The operator reads the details in the log, the client does not.
    fn from(error: Error) -> Self {
        let seconds = error.retry_after().map_or(1, whole_seconds);
        match error.kind() {
            ErrorKind::InProgress => Self::new(
                StatusCode::CONFLICT,
                "in_progress",
                "the same request is being worked on",
            )
            .retry_after_secs(seconds),
            ErrorKind::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "key_reused",
                "this Idempotency-Key was used with another request body",
            ),
            // Why it failed is in the answer and the log of the caller whose work it was.
            ErrorKind::Failing => {
                let message = "this failed a moment ago; try again after Retry-After";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "failing", message)
                    .retry_after_secs(seconds)
            }
            // A retry changes nothing about these.
            ErrorKind::InvalidArgument | ErrorKind::Corrupt | ErrorKind::Unsupported => {
                eprintln!("store: {}", with_causes(&error));
                Self::internal()
            }
            _ => {
                eprintln!("store: {}", with_causes(&error));
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "try again later")
                    .retry_after_secs(seconds)
            }
        }
    }
}

impl From<QueryFailed> for ApiError {
    fn from(error: QueryFailed) -> Self {
        eprintln!("database: {error}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "try again later")
            .retry_after_secs(1)
    }
}

/// An error with its causes, which its own text does not repeat, in one line whatever they hold.
#[must_use]
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = chain.map(ToString::to_string).collect();
    texts.join(": ").lines().collect::<Vec<_>>().join(" | ")
}

/// Rounded up: a client that waits so long is never too early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = axum::Json(json!({ "error": self.code, "message": self.message }));
        let mut response = (self.status, body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_line_has_every_cause() {
        let refused = std::io::Error::other("connection refused\nby the peer");
        let node = Error::new(ErrorKind::Unavailable, "node a:6379").with_source(refused);
        let error = Error::new(ErrorKind::Timeout, "no answer").with_source(node);
        let line = with_causes(&error);
        for cause in ["no answer", "node a:6379", "connection refused | by the peer"] {
            assert_eq!(line.matches(cause).count(), 1, "{line}");
        }
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}
