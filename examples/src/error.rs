//! What a client is told when a request fails.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use derp_kv_core::{Error, Problem};

use crate::database::QueryFailed;

/// An answer that is not a success, as problem details (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct ApiError(#[from] Problem);

impl ApiError {
    /// An answer with `status`, and what is special about this one.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self(Problem::new(status.as_u16(), title).with_detail(detail.into()))
    }

    /// The request cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The service is at fault; what went wrong is in its log.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed")
    }
}

impl From<Error> for ApiError {
    /// The operator reads the details in the log, the client does not.
    fn from(error: Error) -> Self {
        let problem = error.problem();
        if problem.status_code() >= 500 {
            store_failed(&error);
        }
        Self(problem)
    }
}

/// Writes down why a layer has refused a request, where the store was the reason.
pub(crate) async fn log(response: Response) -> Response {
    if let Some(error) = response.extensions().get::<Arc<Error>>() {
        store_failed(error);
    }
    response
}

fn store_failed(error: &Error) {
    tracing::error!(error = with_causes(error), "the store failed a request");
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        error.0
    }
}

impl From<QueryFailed> for ApiError {
    fn from(error: QueryFailed) -> Self {
        tracing::error!(error = with_causes(&error), "the database failed a request");
        let problem = Problem::new(503, "Service Unavailable");
        Self(problem.with_retry_after(Duration::from_secs(1)))
    }
}

/// An error with its causes, which its own text does not repeat, in one line whatever they hold.
#[must_use]
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = chain.map(ToString::to_string).collect();
    texts.join(": ").lines().collect::<Vec<_>>().join(" | ")
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::builder().status(self.0.status_code());
        for (name, value) in self.0.headers() {
            response = response.header(name, value);
        }
        response.body(Body::from(self.0.body())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use derp_kv_core::ErrorKind;

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
