use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::HeaderName;
use ::http::request::Parts;
use ::http::{Method, Request, Response};
use bytes::Bytes;
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::http::problem::Problem;
use crate::http::tower::body::ResponseBody;
use crate::http::tower::client_id::ClientId;
use crate::http::tower::detached::Detached;
use crate::http::tower::fingerprint::Fingerprint;
use crate::http::tower::guard::Guard;
use crate::http::tower::kept_headers::KeptHeaders;
use crate::http::tower::record_id::record_id;
use crate::http::tower::request_body::RequestBody;
use crate::once::options::Idempotency;
use crate::store::kv_store::KvStore;

/// Runs each request once for its `Idempotency-Key`, and answers its retries with the first answer: a
/// layer around any tower service over `http::Request`, modelled on
/// [draft-ietf-httpapi-idempotency-key-header-06](https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/06/)
/// and on [Stripe's API](https://docs.stripe.com/api/idempotent_requests).
///
/// A key is one client's own, for one method and [resource](Self::resource). What
/// [`idempotent_execute`](crate::KvStoreExt::idempotent_execute) guarantees of the work, holds of the
/// service's call. `docs/http.md` in the repository lists what is answered when.
///
/// # Examples
///
/// ```
/// use axum::Router;
/// use axum::http::request::Parts;
/// use axum::http::{HeaderMap, StatusCode};
/// use axum::routing::post;
/// use derp_kv_core::{IdempotencyLayer, Problem};
///
/// // Whoever authenticates the client outside of the layer leaves it in the request's extensions.
/// #[derive(Clone)]
/// struct User(String);
///
/// fn user(request: &Parts) -> Result<String, Problem> {
///     let user = request.extensions.get::<User>();
///     Ok(user.ok_or_else(|| Problem::new(401, "Unauthorized"))?.0.clone())
/// }
///
/// async fn create_order(order: String) -> (StatusCode, [(&'static str, &'static str); 1], String) {
///     (StatusCode::CREATED, [("location", "/orders/1")], order)
/// }
///
/// # #[tokio::main] async fn main() {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let app: Router = Router::new()
///     .route("/orders", post(create_order))
///     .layer(IdempotencyLayer::new(kv, user))
///     .layer(axum::Extension(User("ada".into())));
/// # use tower::ServiceExt;
/// # for replayed in [None, Some("true")] {
/// #     let request = axum::http::Request::post("/orders").header("idempotency-key", "k1");
/// #     let response = app.clone().oneshot(request.body(axum::body::Body::from("{}")).unwrap()).await.unwrap();
/// #     assert_eq!(response.status(), 201);
/// #     assert_eq!(response.headers()["location"], "/orders/1");
/// #     let mark = response.headers().get("idempotent-replayed");
/// #     assert_eq!(mark.map(|mark| mark.to_str().unwrap()), replayed);
/// # }
/// # }
/// ```
///
/// # What is kept
///
/// * The status code, the body byte for byte, and of the headers `Content-Type`, `Content-Language`,
///   `Content-Encoding`, `Content-Disposition`, `Location`, `Content-Location`, `ETag`, `Last-Modified`,
///   `Link` and those of [`keep_header`](Self::keep_header), in order. A replay has
///   `Idempotent-Replayed: true` beside them. The first client gets all headers of the service's response.
/// * Answers with 2xx, 3xx and 4xx but 401, 403, 408, 409, 425 and 429;
///   [`keep_all`](Idempotency::keep_all) keeps all. A response that is not kept, and an error of the
///   service, pass as they are, and free the key.
/// * Not those longer than [`max_response`](Self::max_response) or slower than
///   [`response_timeout`](Self::response_timeout), a `text/event-stream`, a body that fails or panics
///   half-way, or ends in trailers. The first client gets these as they are; the work is done, and retries
///   get 409.
///
/// A response that is kept is read whole before its first byte is sent. What must reach its client piece by
/// piece, and is no `text/event-stream`, belongs on a route without the layer.
///
/// # When others misbehave
///
/// * **The client leaves.** While its request is read, nothing has happened. Then the call goes on as a task of
///   its own, and a retry gets its answer. A server that shuts down does not wait for such a task.
/// * **The service panics.** The panic unwinds through the layer; with
///   [`OnAbandoned::Rerun`](crate::OnAbandoned::Rerun) the key is free again, with
///   [`Reject`](crate::OnAbandoned::Reject) it is not.
/// * **The service hangs.** Its key stays taken, and its retries get 409. Put a time-out inside of the layer:
///   one outside ends the wait of the client and not the work. What such a time-out answers, 408 or 5xx,
///   frees the key. With `Reject` it does not: the work may have been cut off, as by anything that answers
///   408 or 5xx, and counts as abandoned unless the response says [`NothingDone`](crate::NothingDone).
/// * **The store is down.** Requests get 503 and the service is not called. Where the store fails after the
///   work was done, and the answer cannot be kept within `lock_ttl`, its client gets the answer all the
///   same: it is true. A later retry may run the work again, unless `Reject` forbids it. The `Error` is
///   then in the response's extensions as an `Arc<Error>`, as behind every refusal, for a log.
/// * **A record is broken, or an option is wrong.** Requests get 500, and the service is not called.
/// * **Many clients leave.** Their calls go on, so that a server's own bound on requests does not hold for
///   them: put a concurrency limit inside of the layer.
///
/// # Order of layers
///
/// Inside, where replays do not count: rate and concurrency limits, time-outs. In a tower `ServiceBuilder` the
/// layer holds what it got of these by `poll_ready` until it calls the service; axum's `layer` does not.
/// Outside: authentication and authorisation, for a replay is checked by nobody inside; compression, CORS,
/// security and cache headers, for a replay has only those that are kept; and what catches panics. The task
/// of a client that left has the request's extensions and not the task-local values of layers outside.
/// Where one such layer is inside of another, the outer one guards.
///
/// An endpoint of the same store that gives clients' bare keys to `idempotent_execute` needs a
/// [`key_prefix`](Idempotency::key_prefix) of its own, or they reach these records.
///
/// A layer such as axum's `from_fn`, which takes its own type of body only, fits directly inside of this one
/// in axum's `layer`, and in a `ServiceBuilder` behind tower-http's `MapRequestBodyLayer`.
#[must_use]
pub struct IdempotencyLayer<S, C> {
    guard: Arc<Guard<S, C>>,
}

impl<S: KvStore + Clone, C: ClientId> IdempotencyLayer<S, C> {
    /// A layer that keeps its records in `store`. `client_id` tells clients apart, whose keys must not meet: a
    /// user, an account, an API key's owner. It must stay the same from a request to its retry, which an
    /// address or a token that is refreshed does not.
    pub fn new(store: S, client_id: C) -> Self {
        let guard = Guard {
            store,
            client_id,
            options: Idempotency::default(),
            methods: vec![Method::POST, Method::PATCH],
            required: true,
            max_request: 64 * 1024,
            max_response: 256 * 1024,
            response_timeout: Duration::from_secs(10),
            resource: None,
            fingerprint: Fingerprint::default(),
            kept_headers: KeptHeaders::default(),
            attempts: false,
        };
        Self { guard: Arc::new(guard) }
    }

    fn with(mut self, change: impl FnOnce(&mut Guard<S, C>)) -> Self {
        change(Arc::make_mut(&mut self.guard));
        self
    }

    /// How records are kept and how long, and what becomes of abandoned attempts. Status code and
    /// fingerprint are the layer's to set.
    pub fn options(self, options: Idempotency) -> Self {
        self.with(|guard| guard.options = options)
    }

    /// The methods of the requests that are guarded. By default POST and PATCH; all others pass, as they are
    /// idempotent by themselves.
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.with(|guard| guard.methods = methods.into_iter().collect())
    }

    /// Whether a request of these methods must have a key, and gets 400 if it has none. By default true;
    /// otherwise it passes unguarded.
    pub fn required(self, required: bool) -> Self {
        self.with(|guard| guard.required = required)
    }

    /// The longest body of a guarded request, in bytes; a longer one gets 413. By default 64 KiB.
    pub fn max_request(self, bytes: usize) -> Self {
        self.with(|guard| guard.max_request = bytes)
    }

    /// The longest body of a response that is kept, in bytes. By default 256 KiB.
    pub fn max_response(self, bytes: usize) -> Self {
        self.with(|guard| guard.max_response = bytes)
    }

    /// How long the body of a response that is kept may take, from its head on. By default ten seconds. A
    /// longer one goes to its client as it comes, and counts as too long.
    pub fn response_timeout(self, timeout: Duration) -> Self {
        self.with(|guard| guard.response_timeout = timeout)
    }

    /// What a request is about: a key is one client's own, for one method and resource. By default that is
    /// the path that the layer sees, as it was sent: percent-encoded, and without what an outer router has
    /// taken off. Where that is not all, such as in a router that is nested behind a parameter, or in one
    /// that serves several hosts, name the rest as well.
    ///
    /// # Examples
    ///
    /// ```
    /// use axum::extract::OriginalUri;
    /// use derp_kv_core::IdempotencyLayer;
    /// use http::request::Parts;
    ///
    /// // For `nest("/accounts/{id}", orders.layer(layer))`.
    /// fn whole_path(request: &Parts) -> String {
    ///     let original = request.extensions.get::<OriginalUri>().map(|original| &original.0);
    ///     original.unwrap_or(&request.uri).path().to_owned()
    /// }
    ///
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// # fn client(_: &Parts) -> Result<String, derp_kv_core::Problem> { Ok("ada".into()) }
    /// let layer = IdempotencyLayer::new(kv, client).resource(whole_path);
    /// # let _ = layer;
    /// ```
    pub fn resource<F>(self, resource: F) -> Self
    where
        F: Fn(&Parts) -> String + Send + Sync + 'static,
    {
        self.with(|guard| guard.resource = Some(Arc::new(resource)))
    }

    /// What makes two requests the same one; the same key with another fingerprint gets 422.
    ///
    /// By default that is what was sent: method, path and query, `Content-Type` and the bytes of the body,
    /// so that the order of JSON's keys and white space count, and the random boundary of a multipart
    /// form, which each try has another. A function of one's own can parse the body and
    /// name what counts of it, and refuse what it cannot parse. A SHA-256 hash of it is kept. It sees the
    /// request before its key is claimed; method and path count in any case.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_core::bytes::Bytes;
    /// use derp_kv_core::{IdempotencyLayer, Problem};
    /// use http::request::Parts;
    ///
    /// // The members of a `serde_json::Value` are in the order of their names.
    /// fn parsed(_: &Parts, body: &Bytes) -> Result<String, Problem> {
    ///     let order: serde_json::Value = serde_json::from_slice(body)
    ///         .map_err(|_| Problem::new(400, "The order is no JSON"))?;
    ///     Ok(order.to_string())
    /// }
    ///
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// # fn client(_: &Parts) -> Result<String, Problem> { Ok("ada".into()) }
    /// let layer = IdempotencyLayer::new(kv, client).fingerprint(parsed);
    /// # let _ = layer;
    /// ```
    pub fn fingerprint<F, T>(self, fingerprint: F) -> Self
    where
        F: Fn(&Parts, &Bytes) -> Result<T, Problem> + Send + Sync + 'static,
        T: Into<Vec<u8>>,
    {
        self.with(|guard| guard.fingerprint = Fingerprint::custom(fingerprint))
    }

    /// Keeps one more header of the responses. `Set-Cookie` and those of one connection are never kept.
    pub fn keep_header(self, name: HeaderName) -> Self {
        self.with(|guard| guard.kept_headers.add(name))
    }

    /// Whether the service finds its [`Attempt`](crate::Attempt) in the request's extensions: its number, and
    /// whether its lease is lost. By default false; it costs two commands more for each first call.
    pub fn attempts(self, attempts: bool) -> Self {
        self.with(|guard| guard.attempts = attempts)
    }

    /// The id of the record of a request, whose [`ClientId`] is `client`, for
    /// [`idempotent_forget`](crate::KvStoreExt::idempotent_forget): the key without quotes, and the
    /// [resource](Self::resource).
    ///
    /// ```
    /// # use derp_kv_core::{Idempotency, IdempotencyLayer, KvStoreExt, OnAbandoned, Problem};
    /// # use http::Method;
    /// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// # let user = |_: &http::request::Parts| Ok::<_, Problem>("ada".to_owned());
    /// let options = Idempotency::default().on_abandoned(OnAbandoned::Reject);
    /// let layer = IdempotencyLayer::new(kv.clone(), user).options(options.clone());
    /// let id = layer.id("ada", &Method::POST, "/orders", "a-key");
    /// assert_eq!(id, "ada/POST/%2Forders/a-key/");
    /// kv.idempotent_forget(id, &options).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn id(&self, client: &str, method: &Method, resource: &str, key: &str) -> String {
        record_id(client, method.as_str(), resource, key)
    }
}

impl<S, C, V> Layer<V> for IdempotencyLayer<S, C> {
    type Service = Idempotent<S, C, V>;

    fn layer(&self, inner: V) -> Self::Service {
        Idempotent { guard: self.guard.clone(), inner }
    }
}

impl<S, C> Clone for IdempotencyLayer<S, C> {
    fn clone(&self) -> Self {
        Self { guard: self.guard.clone() }
    }
}

impl<S, C> fmt::Debug for IdempotencyLayer<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("IdempotencyLayer", &self.guard, f)
    }
}

/// A service whose requests run once for their idempotency keys: see [`IdempotencyLayer`].
pub struct Idempotent<S, C, V> {
    guard: Arc<Guard<S, C>>,
    inner: V,
}

impl<S, C, V: Clone> Clone for Idempotent<S, C, V> {
    fn clone(&self) -> Self {
        Self { guard: self.guard.clone(), inner: self.inner.clone() }
    }
}

impl<S, C, V> fmt::Debug for Idempotent<S, C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Idempotent", &self.guard, f)
    }
}

/// The store, the clients' names and the service need not be `Debug`.
fn debug<S, C>(name: &str, guard: &Guard<S, C>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_struct(name)
        .field("options", &guard.options)
        .field("methods", &guard.methods)
        .field("required", &guard.required)
        .field("max_request", &guard.max_request)
        .field("max_response", &guard.max_response)
        .field("fingerprint", &guard.fingerprint)
        .field("attempts", &guard.attempts)
        .finish_non_exhaustive()
}

impl<S, C, V, B, R> Service<Request<B>> for Idempotent<S, C, V>
where
    V: Service<Request<RequestBody<B>>, Response = Response<R>, Error: Send + 'static>
        + Clone
        + Send
        + 'static,
    V::Future: Send,
    S: KvStore + Clone,
    C: ClientId,
    B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
    R: Body<Data = Bytes, Error: Send> + Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = V::Error;
    type Future = IdempotencyFuture<V::Future, R, V::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), V::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready must be called, and not a clone of it.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        let state = match self.guard.key_of(&request) {
            None => State::Passes { response: ready.call(request.map(RequestBody::as_sent)) },
            Some(key) => {
                let (guard, request) = (self.guard.clone(), Box::new(request));
                let call = |goes_on| guard.call(ready, request, key, goes_on);
                State::Guarded { response: Detached::new(call) }
            }
        };
        IdempotencyFuture { state }
    }
}

pin_project! {
    /// The future of [`Idempotent`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before the request is read, it does nothing; later, the call goes on as a task of its own.
    pub struct IdempotencyFuture<F, R, E>
    where
        R: Body,
        R: 'static,
        E: 'static,
    {
        #[pin]
        state: State<F, R, E>,
    }
}

type Guarded<R, E> = Detached<Result<Response<ResponseBody<R>>, E>>;

pin_project! {
    #[project = Projected]
    enum State<F, R, E>
    where
        R: Body,
        R: 'static,
        E: 'static,
    {
        Passes { #[pin] response: F },
        Guarded { response: Guarded<R, E> },
    }
}

impl<F, R, E> Future for IdempotencyFuture<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes> + 'static,
    E: 'static,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            Projected::Passes { response } => response
                .poll(cx)
                .map(|response| response.map(|response| response.map(ResponseBody::inner))),
            Projected::Guarded { response } => Pin::new(response).poll(cx),
        }
    }
}

impl<F, R: Body + 'static, E: 'static> fmt::Debug for IdempotencyFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyFuture").finish_non_exhaustive()
    }
}
