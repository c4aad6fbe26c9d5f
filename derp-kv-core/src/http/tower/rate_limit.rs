use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use ::http::request::Parts;
use ::http::{Request, Response};
use bytes::Bytes;
use http_body::Body;
use pin_project_lite::pin_project;
use sha2::{Digest, Sha256};
use tower_layer::Layer;
use tower_service::Service;

use crate::coordinate::keys::MAX_ID;
use crate::coordinate::token::hex;
use crate::error::{Error, ErrorKind};
use crate::http::headers::{QuotaPolicies, RATE_LIMIT, RATE_LIMIT_POLICY, reduced_capacity};
use crate::http::problem::{Problem, RETRY_AFTER};
use crate::http::tower::body::ResponseBody;
use crate::http::tower::client_id::ClientId;
use crate::http::tower::refusal::refusal;
use crate::once::id::id_of;
use crate::rate_limit::limit::RateLimit;
use crate::rate_limit::limiter::{RateLimiter, is_failure};
use crate::rate_limit::status::RateLimitStatus;
use crate::rate_limit::without_store::WithoutStore;
use crate::store::kv_store::KvStore;

/// A [`RateLimit`] for each client of an HTTP service.
///
/// Each request counts before the service is called. One that is within the limit goes on, and its
/// response tells how the client stands; one that is not is answered by the layer. The layer has no
/// error of its own: every refusal is a response.
///
/// | what happens | response | headers |
/// |---|---|---|
/// | the request is within the limit | that of the service | `RateLimit-Policy`, `RateLimit` |
/// | it is not | 429, [problem](Problem) `quota-exceeded` | those, and `Retry-After` |
/// | the store fails, and nothing else is [said](Self::on_store_error) | 503, problem `temporary-reduced-capacity` | `RateLimit-Policy`, `Retry-After` |
/// | the [`ClientId`] refuses the request, or finds an empty id | its problem, or 400 | |
/// | the limit has a mistake | 500 | |
///
/// [`RateLimitStatus::headers`] says what the headers tell. A response of the service that has a
/// `Retry-After` of its own gets no `RateLimit` beside it, which could tell an earlier or a later time.
/// Where one such layer is inside of another, their headers add up.
///
/// # What is counted
///
/// Each request counts once, for the limit's [cost](RateLimit::cost), whatever the service answers.
/// It is kept under the id `{name}/{client}/` of [`id_of`](crate::id_of), where both are usual words:
/// [`id`](Self::id) tells it. Layers of one name on one store count together, if their limits are of one
/// kind.
///
/// # Order of layers
///
/// * Inside of a layer for CORS, which answers preflights itself: elsewhere they count, and browsers cannot
///   read a refusal. It must expose the headers.
/// * Inside of authentication, where the client is who has authenticated.
/// * Outside of an idempotency layer every try counts; inside of it, a replay does not.
///
/// # Cancel safety
///
/// When the client goes away, its request is counted or not, and what it held of the service is free.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use derp_kv_core::{ByHeader, RateLimit, RateLimitLayer};
/// use http::HeaderName;
///
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let client = ByHeader::new(HeaderName::from_static("x-api-key"));
/// let limit = RateLimit::smooth(100, Duration::from_secs(60)).burst(20);
/// let app: Router = Router::new()
///     .route("/orders", get(|| async { "none yet" }))
///     .layer(RateLimitLayer::new(kv, "orders", limit, client));
/// # let _ = app;
/// ```
pub struct RateLimitLayer<S, C> {
    config: Arc<Config<S, C>>,
}

/// What all requests of a layer share.
#[derive(Clone)]
struct Config<S, C> {
    limiter: RateLimiter<S>,
    client_id: C,
    name: String,
    /// None where clients are told nothing.
    told: Option<Told>,
    policies: QuotaPolicies,
}

/// The headers that tell a client how it stands.
#[derive(Clone, Default)]
struct Told {
    policy: Option<HeaderValue>,
    remaining: Option<HeaderValue>,
}

impl<S, C> RateLimitLayer<S, C>
where
    S: KvStore + Clone + 'static,
    C: ClientId,
{
    /// A layer that lets each client have `limit`, counted in `store`. A mistake in the limit is an
    /// error of each request.
    ///
    /// `name` is what is limited, such as `orders`: the name of the quota policy that clients see, and the
    /// first part of the id that is counted. Two layers of one name on one store count together.
    #[must_use]
    pub fn new(store: S, name: &str, limit: RateLimit, client_id: C) -> Self {
        let policies = QuotaPolicies::new(&limit, name);
        let told = Some(Told::policy(&policies));
        let limiter = RateLimiter::new(store, limit);
        let name = name.to_owned();
        Self { config: Arc::new(Config { limiter, client_id, name, told, policies }) }
    }

    /// How the limits of [`RateLimit::all`] are called that clients see, in their order. By default
    /// the layer's name and a number.
    #[must_use]
    pub fn policy_names(self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.with(|config| {
            let policies = config.policies.clone().names(names);
            config.set_policies(policies);
        })
    }

    /// What to answer where the store fails: [`RateLimiter::on_store_error`]. By default 503, as with
    /// [`WithoutStore::Deny`].
    #[must_use]
    pub fn on_store_error(self, without_store: WithoutStore) -> Self {
        self.with(|config| {
            config.limiter = config.limiter.clone().on_store_error(without_store);
        })
    }

    /// Lets a client that was denied ask no store until it may come back:
    /// [`RateLimiter::block_locally`].
    #[must_use]
    pub fn block_locally(self) -> Self {
        self.with(|config| config.limiter = config.limiter.clone().block_locally())
    }

    /// Tells clients nothing but `Retry-After`: neither the limit nor what remains of it.
    #[must_use]
    pub fn without_headers(self) -> Self {
        self.with(|config| config.told = None)
    }

    /// The limiter, which resets a client, or gives it something back, by its [`id`](Self::id).
    #[must_use]
    pub fn limiter(&self) -> &RateLimiter<S> {
        &self.config.limiter
    }

    /// What the requests of a client are counted under, where its [`ClientId`] is `client`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::{Problem, RateLimit, RateLimitLayer};
    /// use http::request::Parts;
    /// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let everybody = |_: &Parts| Ok::<_, Problem>("everybody".to_owned());
    /// let limit = RateLimit::new(100, Duration::from_secs(60));
    /// let layer = RateLimitLayer::new(kv, "orders", limit, everybody);
    /// assert_eq!(layer.id("everybody"), "orders/everybody/");
    /// layer.limiter().reset(layer.id("everybody")).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn id(&self, client: &str) -> String {
        self.config.id(client)
    }

    fn with(mut self, change: impl FnOnce(&mut Config<S, C>)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl<S, C> Config<S, C> {
    fn set_policies(&mut self, policies: QuotaPolicies) {
        self.told = self.told.as_ref().map(|_| Told::policy(&policies));
        self.policies = policies;
    }

    fn id(&self, client: &str) -> String {
        let id = id_of(&[&*self.name, client]);
        if id.len() <= MAX_ID {
            return id;
        }
        // Three parts, of which two are empty: no name and client have this id.
        id_of(&["", "", &*hex(&Sha256::digest(id))])
    }

    fn told(&self, status: &RateLimitStatus) -> Told {
        let Some(told) = &self.told else { return Told::default() };
        let remaining = self.policies.remaining(status);
        Told { remaining: remaining.and_then(|value| value.try_into().ok()), ..told.clone() }
    }
}

impl<S: KvStore, C: ClientId> Config<S, C> {
    /// What to tell a client whose request goes on, or why it does not.
    async fn decide(&self, request: &Parts) -> Result<Told, Refused> {
        let refused = |problem| Refused { problem, told: Told::default(), error: None };
        let client = self.client_id.client_id(request).await.map_err(refused)?;
        if client.is_empty() {
            // All who forget to name themselves would share a limit.
            let problem = Problem::new(400, "Bad Request");
            return Err(refused(problem.with_detail("It is not known who sends this request.")));
        }
        match self.limiter.check(self.id(&client)).await {
            Ok(status) if status.allowed => Ok(self.told(&status)),
            Ok(status) => {
                let problem = status.problem(&self.policies);
                Err(Refused { problem, told: self.told(&status), error: None })
            }
            Err(error) => {
                let problem = failed(&error);
                // A limit with a mistake is none that a client could keep.
                let told = self.told.clone().filter(|_| problem.status_code() != 500);
                Err(Refused { problem, told: told.unwrap_or_default(), error: Some(error) })
            }
        }
    }
}

/// What to answer where nothing was decided.
fn failed(error: &Error) -> Problem {
    if is_failure(error) {
        reduced_capacity()
    } else if error.kind() == ErrorKind::InvalidArgument {
        // Every id is a good one, so the mistake is in the limit and not the client's.
        Problem::new(500, "Internal Server Error")
    } else {
        error.problem()
    }
}

/// Why a request does not go on.
struct Refused {
    problem: Problem,
    told: Told,
    error: Option<Error>,
}

impl Told {
    fn policy(policies: &QuotaPolicies) -> Self {
        let policy = policies.header().and_then(|value| HeaderValue::from_str(value).ok());
        Self { policy, remaining: None }
    }

    fn append_policy(&mut self, headers: &mut HeaderMap) {
        if let Some(policy) = self.policy.take() {
            headers.append(HeaderName::from_static(RATE_LIMIT_POLICY), policy);
        }
    }

    fn append_remaining(&mut self, headers: &mut HeaderMap) {
        if let Some(remaining) = self.remaining.take() {
            headers.append(HeaderName::from_static(RATE_LIMIT), remaining);
        }
    }
}

impl<S, C> Clone for RateLimitLayer<S, C> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone() }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for RateLimitLayer<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt_as("RateLimitLayer", f)
    }
}

impl<S: fmt::Debug, C> Config<S, C> {
    fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("name", &self.name)
            .field("limiter", &self.limiter)
            .field("headers", &self.told.is_some())
            .finish_non_exhaustive()
    }
}

impl<S, C, V> Layer<V> for RateLimitLayer<S, C> {
    type Service = RateLimited<S, C, V>;

    fn layer(&self, inner: V) -> Self::Service {
        RateLimited { config: self.config.clone(), inner }
    }
}

/// A service whose clients are held to a limit: see [`RateLimitLayer`].
pub struct RateLimited<S, C, V> {
    config: Arc<Config<S, C>>,
    inner: V,
}

impl<S, C, V: Clone> Clone for RateLimited<S, C, V> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), inner: self.inner.clone() }
    }
}

impl<S: fmt::Debug, C, V> fmt::Debug for RateLimited<S, C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt_as("RateLimited", f)
    }
}

impl<S, C, V, RequestBody, B> Service<Request<RequestBody>> for RateLimited<S, C, V>
where
    S: KvStore + 'static,
    C: ClientId,
    V: Service<Request<RequestBody>, Response = Response<B>> + Clone,
    B: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<B>>;
    type Error = V::Error;
    type Future = RateLimitFuture<V, RequestBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), V::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        // The service that was polled is the one that is ready: it may hold a permit. Its clone is not.
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone);
        let (head, body) = request.into_parts();
        let config = self.config.clone();
        // A box, because the futures of a `ClientId` and of the store have no names.
        let deciding = Box::pin(async move {
            let decided = config.decide(&head).await;
            (head, decided)
        });
        RateLimitFuture { state: State::Deciding { deciding, waiting: Some((ready, body)) } }
    }
}

type Deciding = Pin<Box<dyn Future<Output = (Parts, Result<Told, Refused>)> + Send>>;

pin_project! {
    /// The response of a [`RateLimited`] service.
    pub struct RateLimitFuture<V, RequestBody>
    where
        V: Service<Request<RequestBody>>,
    {
        #[pin]
        state: State<V, RequestBody>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<V, RequestBody>
    where
        V: Service<Request<RequestBody>>,
    {
        Deciding { deciding: Deciding, waiting: Option<(V, RequestBody)> },
        Calling { #[pin] future: V::Future, told: Told },
    }
}

impl<V, RequestBody, B> Future for RateLimitFuture<V, RequestBody>
where
    V: Service<Request<RequestBody>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<B>>, V::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        if let Projected::Deciding { deciding, waiting } = state.as_mut().project() {
            let (head, decided) = ready!(deciding.as_mut().poll(cx));
            // It is there until the decision is, and then this state ends.
            let Some((mut service, body)) = waiting.take() else { return Poll::Pending };
            let told = match decided {
                Ok(told) => told,
                Err(Refused { problem, mut told, error }) => {
                    let mut response = refusal(problem, error);
                    told.append_policy(response.headers_mut());
                    told.append_remaining(response.headers_mut());
                    return Poll::Ready(Ok(response));
                }
            };
            let future = service.call(Request::from_parts(head, body));
            state.set(State::Calling { future, told });
        }
        let Projected::Calling { future, told } = state.project() else { return Poll::Pending };
        let mut response = ready!(future.poll(cx))?;
        told.append_policy(response.headers_mut());
        if !response.headers().contains_key(RETRY_AFTER) {
            told.append_remaining(response.headers_mut());
        }
        Poll::Ready(Ok(response.map(ResponseBody::inner)))
    }
}

impl<V: Service<Request<B>>, B> fmt::Debug for RateLimitFuture<V, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Deciding { .. } => "Deciding",
            State::Calling { .. } => "Calling",
        };
        f.debug_tuple("RateLimitFuture").field(&format_args!("{state}")).finish()
    }
}
