use std::any::Any;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use ::http::request::Parts;
use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body::Body;
use tower_service::Service;

use crate::error::{Error, ErrorKind};
use crate::http::problem::Problem;
use crate::http::tower::body::ResponseBody;
use crate::http::tower::client_id::ClientId;
use crate::http::tower::detached::GoesOn;
use crate::http::tower::fingerprint::Fingerprint;
use crate::http::tower::idempotency_key::{key_of, missing};
use crate::http::tower::kept_answer::{keep, replay};
use crate::http::tower::kept_headers::KeptHeaders;
use crate::http::tower::nothing_done::NothingDone;
use crate::http::tower::record_id::record_id;
use crate::http::tower::refusal::refusal;
use crate::http::tower::request_body::{RequestBody, read};
use crate::once::attempts::Attempt;
use crate::once::idempotency::execute;
use crate::once::options::{Idempotency, OnAbandoned};
use crate::once::reply::Reply;
use crate::store::kv_store::KvStore;

pub(crate) type Resource = Arc<dyn Fn(&Parts) -> String + Send + Sync>;

/// Marks a request that an outer layer guards: to guard it again would be to wait for itself.
#[derive(Clone, Copy)]
struct Guarded;

/// What the service did, whatever of it is kept.
enum Did<R: Body> {
    Answered(Response<ResponseBody<R>>),
    /// The body panicked while it was read.
    Panicked(Box<dyn Any + Send>),
}

/// How requests are guarded: what an [`IdempotencyLayer`](crate::IdempotencyLayer) was told.
#[derive(Clone)]
pub(crate) struct Guard<S, C> {
    pub(crate) store: S,
    pub(crate) client_id: C,
    pub(crate) options: Idempotency,
    pub(crate) methods: Vec<Method>,
    pub(crate) required: bool,
    /// In bytes.
    pub(crate) max_request: usize,
    /// In bytes.
    pub(crate) max_response: usize,
    pub(crate) response_timeout: Duration,
    /// What a request is about. By default its path.
    pub(crate) resource: Option<Resource>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) kept_headers: KeptHeaders,
    pub(crate) attempts: bool,
}

/// A request that is to run once.
struct Claimed<B> {
    id: String,
    /// Those of the layer, with the fingerprint of the request.
    options: Idempotency,
    request: Box<Request<RequestBody<B>>>,
}

/// Why there is no reply to keep.
enum Failure<E> {
    Store(Error),
    Service(E),
}

impl<E> From<Error> for Failure<E> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl<S, C> Guard<S, C> {
    /// The key of a request that is to be guarded, or why it is refused. None for one that passes.
    pub(crate) fn key_of<B>(&self, request: &Request<B>) -> Option<Result<String, Problem>> {
        let is_guarded = request.extensions().get::<Guarded>().is_some();
        if is_guarded || !self.methods.contains(request.method()) {
            return None;
        }
        match key_of(request.headers()).transpose() {
            None if self.required => Some(Err(missing())),
            key => key,
        }
    }
}

impl<S: KvStore + Clone, C: ClientId> Guard<S, C> {
    /// Answers a request that is to be guarded by `service`, which is ready.
    ///
    /// The request is boxed, because a future has room for each function that it hands something on to.
    pub(crate) async fn call<V, B, R>(
        self: Arc<Self>,
        service: V,
        request: Box<Request<B>>,
        key: Result<String, Problem>,
        goes_on: GoesOn,
    ) -> Result<Response<ResponseBody<R>>, V::Error>
    where
        V: Service<Request<RequestBody<B>>, Response = Response<R>>,
        B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send,
        R: Body<Data = Bytes>,
    {
        match self.claim(request, key).await {
            Ok(claimed) => {
                goes_on.set();
                self.execute(service, claimed).await
            }
            // A client that leaves meanwhile leaves nothing behind.
            Err(problem) => Ok(refusal(problem, None)),
        }
    }

    /// Finds out which request it is.
    async fn claim<B>(
        &self,
        request: Box<Request<B>>,
        key: Result<String, Problem>,
    ) -> Result<Claimed<B>, Problem>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send,
    {
        let key = key?;
        let (mut parts, body) = request.into_parts();
        let client = self.client_id.client_id(&parts).await?;
        if client.is_empty() {
            // All who forget to name themselves would share their keys.
            let problem = Problem::new(400, "Bad Request");
            return Err(problem.with_detail("It is not known who sends this request."));
        }
        let (body, trailers) = read(&parts.headers, body, self.max_request).await?;
        let fingerprint = self.fingerprint.of(&parts, &body)?;
        let resource = match &self.resource {
            Some(resource) => resource(&parts).into(),
            None => Cow::from(parts.uri.path()),
        };
        let id = record_id(&client, parts.method.as_str(), &resource, &key);
        parts.extensions.insert(Guarded);
        Ok(Claimed {
            id,
            options: Idempotency { fingerprint: Some(fingerprint), ..self.options.clone() },
            request: Box::new(Request::from_parts(parts, RequestBody::read(body, trailers))),
        })
    }

    async fn execute<V, B, R>(
        &self,
        service: V,
        claimed: Claimed<B>,
    ) -> Result<Response<ResponseBody<R>>, V::Error>
    where
        V: Service<Request<RequestBody<B>>, Response = Response<R>>,
        R: Body<Data = Bytes>,
    {
        let Claimed { id, options, mut request } = claimed;
        // Whoever causes the work gets the service's own response, also what of it is not kept.
        let mut did = None;
        let rejects = options.on_abandoned == OnAbandoned::Reject;
        let is_marked = rejects || self.attempts;
        let work = |attempt: Attempt| {
            if self.attempts {
                request.extensions_mut().insert(attempt.clone());
            }
            self.work(service, request, &options, Some(attempt).filter(|_| rejects), &mut did)
        };
        let outcome = execute(&self.store, id.as_bytes(), &options, is_marked, work).await;
        match (outcome, did) {
            (_, Some(Did::Panicked(panic))) => resume_unwind(panic),
            (Err(Failure::Service(error)), _) => Err(error),
            // Also where this call has done the work and another's record came first: that one counts.
            (Ok(outcome), _) if outcome.is_replay => {
                let response = replay(outcome.body, &self.kept_headers);
                Ok(response.unwrap_or_else(|error| refusal(error.problem(), Some(error))))
            }
            (Ok(_), Some(Did::Answered(response))) => Ok(response),
            // Even where the store failed after the work was done: the answer is known, and true. The
            // error is there for a log.
            (Err(Failure::Store(error)), Some(Did::Answered(mut response))) => {
                response.extensions_mut().insert(Arc::new(error));
                Ok(response)
            }
            (Err(Failure::Store(error)), None) => Ok(refusal(problem(&error), Some(error))),
            // Work that has run has left its response.
            (Ok(_), None) => Ok(refusal(internal(), None)),
        }
    }

    /// Calls the service, puts its response into `did` and says what to keep of it. `attempt` is that of
    /// work that must not run again where nobody knows what it did.
    async fn work<V, B, R>(
        &self,
        mut service: V,
        request: Box<Request<RequestBody<B>>>,
        options: &Idempotency,
        attempt: Option<Attempt>,
        did: &mut Option<Did<R>>,
    ) -> Result<Reply, Failure<V::Error>>
    where
        V: Service<Request<RequestBody<B>>, Response = Response<R>>,
        R: Body<Data = Bytes>,
    {
        let response = service.call(*request).await;
        if let Some(attempt) = attempt.filter(|_| is_cut_off(&response)) {
            attempt.abandon();
        }
        let response = response.map_err(Failure::Service)?;
        let status_code = response.status().as_u16();
        let kept =
            keep(response, options, self.max_response, self.response_timeout, &self.kept_headers);
        // The work is done, and must not run again because its body panics.
        match AssertUnwindSafe(kept).catch_unwind().await {
            Ok((reply, response)) => {
                *did = Some(Did::Answered(response));
                Ok(reply)
            }
            Err(panic) => {
                *did = Some(Did::Panicked(panic));
                Ok(Reply::omitted(status_code))
            }
        }
    }
}

/// Whether the service may have been cut off in the middle of its work: by a time-out, or by what catches
/// its panics.
fn is_cut_off<R, E>(response: &Result<Response<R>, E>) -> bool {
    let Ok(response) = response else { return true };
    let says_nothing = response.extensions().get::<NothingDone>().is_none();
    let status = response.status();
    says_nothing && (status == StatusCode::REQUEST_TIMEOUT || status.is_server_error())
}

/// What to tell a client whose request was not carried out.
fn problem(error: &Error) -> Problem {
    match error.kind() {
        // Ids are bounded here, so it is an option that is wrong, and no fault of the client.
        ErrorKind::InvalidArgument => internal(),
        _ => error.problem(),
    }
}

fn internal() -> Problem {
    Problem::new(500, "Internal Server Error")
}
