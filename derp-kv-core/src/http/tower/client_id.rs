use ::http::request::Parts;

use crate::http::problem::Problem;

/// Tells who the client of a request is.
///
/// It sees the head of the request with its extensions, so that what an authentication layer outside
/// has found out counts. Every closure from [`Parts`] to `Result<String, Problem>` is one. Implement the
/// trait where it must wait for something, for example for a session to be looked up.
///
/// # Examples
///
/// ```
/// use derp_kv_core::{ClientId, Problem};
/// use http::request::Parts;
///
/// #[derive(Clone)]
/// struct User(u64);
///
/// fn user(request: &Parts) -> Result<String, Problem> {
///     let user = request.extensions.get::<User>();
///     let user = user.ok_or_else(|| Problem::new(401, "Unauthorized"))?;
///     Ok(format!("user:{}", user.0))
/// }
///
/// fn is_a_client_id(_: impl ClientId) {}
/// is_a_client_id(user);
/// ```
pub trait ClientId: Clone + Send + Sync + 'static {
    /// The id of the client that sent `request`, or the answer that refuses it.
    ///
    /// # Errors
    ///
    /// A [`Problem`] is sent to the client instead of an answer of the service.
    ///
    /// # Cancel safety
    ///
    /// It is dropped when the client goes away.
    fn client_id(&self, request: &Parts) -> impl Future<Output = Result<String, Problem>> + Send;

    /// The id that this finds, or where nobody has authenticated a request, which this refuses with 401,
    /// that of `other`: who has logged in counts as a user, and everybody else as an address. Any other
    /// refusal stays one: a client must not become another because a session could not be looked up.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use derp_kv_core::{ByExtension, ByPeer, ClientId};
    /// use http::request::Parts;
    ///
    /// #[derive(Clone)]
    /// struct User(u64);
    ///
    /// let peer = |request: &Parts| request.extensions.get::<SocketAddr>().copied();
    /// let client = ByExtension::new("user", |user: &User| user.0.to_string()).or(ByPeer::new(peer));
    /// # let _ = client;
    /// ```
    #[must_use]
    fn or<C: ClientId>(self, other: C) -> Or<Self, C> {
        Or { first: self, second: other }
    }
}

impl<F> ClientId for F
where
    F: Fn(&Parts) -> Result<String, Problem> + Clone + Send + Sync + 'static,
{
    fn client_id(&self, request: &Parts) -> impl Future<Output = Result<String, Problem>> + Send {
        std::future::ready(self(request))
    }
}

/// One way to tell who a client is, and another where the first refuses: [`ClientId::or`].
#[derive(Clone, Copy, Debug)]
pub struct Or<A, B> {
    first: A,
    second: B,
}

impl<A: ClientId, B: ClientId> ClientId for Or<A, B> {
    async fn client_id(&self, request: &Parts) -> Result<String, Problem> {
        match self.first.client_id(request).await {
            Err(problem) if problem.status_code() == 401 => self.second.client_id(request).await,
            refused => refused,
        }
    }
}
