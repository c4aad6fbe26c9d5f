//! Responses that a layer gives in the place of the service.

use std::sync::Arc;

use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use ::http::{Response, StatusCode};
use http_body::Body;

use bytes::Bytes;

use crate::error::Error;
use crate::http::problem::Problem;
use crate::http::tower::body::ResponseBody;
use crate::http::tower::nothing_done::NothingDone;

/// The response that tells a client of `problem`. It carries the problem in its extensions, so that a
/// layer outside can tell the client in another form, and the `error` behind it, for a log.
pub(crate) fn refusal<B>(problem: Problem, error: Option<Error>) -> Response<ResponseBody<B>>
where
    B: Body<Data = Bytes>,
{
    let mut response = Response::new(ResponseBody::whole(problem.body()));
    let status = StatusCode::from_u16(problem.status_code()).ok();
    let status = status.filter(|status| !status.is_informational());
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in problem.headers() {
        append(response.headers_mut(), name, value);
    }
    response.extensions_mut().insert(problem);
    response.extensions_mut().insert(NothingDone);
    if let Some(error) = error {
        response.extensions_mut().insert(Arc::new(error));
    }
    response
}

/// Adds a header, if its value can be one.
pub(crate) fn append(headers: &mut HeaderMap, name: &'static str, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.append(HeaderName::from_static(name), value);
    }
}
