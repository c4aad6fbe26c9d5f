//! The line in the log that each request gets, and the span that its work is in.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::field::Empty;
use tracing::{Instrument, Level, Span, debug, info, info_span, warn};

use crate::error::ApiError;
use crate::request_id::{self, RequestIds};
use crate::stopping::Stopping;

/// What the log's filter calls the lines.
const TARGET: &str = "access";

/// What OpenTelemetry calls a method that it does not know.
const OTHER: &str = "_OTHER";

/// The routes that machines call every few seconds.
const PROBES: [&str; 3] = ["/health", "/health/live", "/metrics"];

/// Where an answer comes from, in the extensions of a response: the log shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cached(pub(crate) &'static str);

/// Logs each request of the `router` once it is answered: the method, the template of the route, the
/// status, how long it took until the head of the answer, and the request's id. The path, the query, the
/// headers and the bodies hold ids, keys and names of people; nothing of them is in the log. The one exception
/// is `X-Request-Id` behind `trusted_proxies`, the last of which says there what it calls the request; without
/// any, whoever calls could write into the log.
///
/// Probes are logged as DEBUG, a failure of the service as WARN and all else as INFO. A handler that
/// panics is answered with 500.
pub fn log(router: Router, stopping: Stopping, trusted_proxies: usize) -> Router {
    let access = Arc::new(Access { ids: RequestIds::new(trusted_proxies > 0), stopping });
    router.layer(from_fn_with_state(access, around))
}

#[derive(Debug)]
struct Access {
    ids: RequestIds,
    stopping: Stopping,
}

async fn around(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut line = Line {
        method: name(request.method()),
        is_probe: route.as_ref().is_some_and(|route| PROBES.contains(&route.as_str())),
        route,
        id: access.ids.of(request.headers()),
        began: Instant::now(),
        is_answered: false,
    };
    // A probe is not waited for: it asks again before it is answered.
    let _under_way = if line.is_probe { None } else { access.stopping.request() };
    let span = line.span();
    let work = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone());
    // The panic itself is logged where it happens.
    let panicked = |_: Box<dyn Any + Send>| ApiError::internal().into_response();
    let mut response = work.await.unwrap_or_else(panicked);
    response.headers_mut().insert(request_id::HEADER, request_id::header(&line.id));
    line.answered(&response, &span);
    response
}

/// What clients make up is not a label and not a word of the log.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => OTHER,
    }
}

/// What is logged of a request. Dropped without an answer, it says so: most often the client has gone away.
struct Line {
    method: &'static str,
    route: Option<MatchedPath>,
    id: String,
    is_probe: bool,
    began: Instant,
    is_answered: bool,
}

impl Line {
    /// None where no route matches.
    fn route(&self) -> Option<&str> {
        self.route.as_ref().map(MatchedPath::as_str)
    }

    /// The names are OpenTelemetry's.
    fn span(&self) -> Span {
        let method = if self.method == OTHER { "HTTP" } else { self.method };
        let name = self.route().map_or(method.to_owned(), |route| format!("{method} {route}"));
        info_span!(
            "request",
            otel.kind = "server",
            otel.name = name,
            otel.status_code = Empty,
            http.request.method = self.method,
            http.route = self.route(),
            http.response.status_code = Empty,
            request_id = self.id,
        )
    }

    fn answered(&mut self, response: &Response, span: &Span) {
        let status = response.status();
        // OpenTelemetry has no unsigned numbers, and makes text of one.
        span.record("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
        let cached = response.extensions().get::<Cached>().map(|cached| cached.0);
        let replayed = response.headers().contains_key("idempotent-replayed").then_some(true);
        self.is_answered = true;
        let level = if status.is_server_error() { Level::WARN } else { Level::INFO };
        self.write(level, Some(status), cached, replayed);
    }

    fn write(
        &self,
        level: Level,
        status: Option<StatusCode>,
        cached: Option<&str>,
        replayed: Option<bool>,
    ) {
        let (method, route, request_id) = (self.method, self.route(), &*self.id);
        let status = status.map(|status| status.as_u16());
        let ms = (self.began.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        let is_answered = status.is_some();
        let message = if is_answered { "answered" } else { "dropped before it was answered" };
        // Why a probe fails is logged once, and not at each probe.
        let level = if self.is_probe { Level::DEBUG } else { level };
        macro_rules! write_line {
            ($level:ident) => {
                $level!(
                    target: TARGET, parent: None,
                    method, route, status, ms, cached, replayed, request_id, "{message}"
                )
            };
        }
        match level {
            Level::DEBUG => write_line!(debug),
            Level::WARN => write_line!(warn),
            _ => write_line!(info),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.is_answered {
            self.write(Level::INFO, None, None, None);
        }
    }
}
