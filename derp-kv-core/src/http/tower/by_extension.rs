use std::fmt;
use std::marker::PhantomData;

use ::http::request::Parts;

use crate::http::problem::Problem;
use crate::http::tower::client_id::ClientId;

/// Takes a request for that of whom an outer layer has put into its extensions, such as the user
/// that an authentication layer has found.
///
/// The id is the kind, a colon, and what is known of the client: `user:ada`. Choose kinds without a colon,
/// and neither `ip` nor `header`, which the others have: then no two kinds of clients share an id.
///
/// # Refusals
///
/// 401 where there is no such extension, or what is known of the client is empty: nobody has authenticated the request, or the layer that does is
/// inside of this one. It has no `WWW-Authenticate`, because the scheme is not known here: where
/// your clients need one, let the layer outside refuse them first.
///
/// # Examples
///
/// ```
/// use derp_kv_core::ByExtension;
///
/// #[derive(Clone)]
/// struct User {
///     name: String,
/// }
///
/// let client = ByExtension::new("user", |user: &User| user.name.clone());
/// # let _ = client;
/// ```
pub struct ByExtension<T, F> {
    kind: &'static str,
    id: F,
    extension: PhantomData<fn(&T)>,
}

impl<T, F> ByExtension<T, F>
where
    T: Send + Sync + 'static,
    F: Fn(&T) -> String + Clone + Send + Sync + 'static,
{
    /// The client is of this `kind`, and `id` tells which one by the extension of the type `T`.
    #[must_use]
    pub fn new(kind: &'static str, id: F) -> Self {
        Self { kind, id, extension: PhantomData }
    }
}

impl<T, F> ClientId for ByExtension<T, F>
where
    T: Send + Sync + 'static,
    F: Fn(&T) -> String + Clone + Send + Sync + 'static,
{
    fn client_id(&self, request: &Parts) -> impl Future<Output = Result<String, Problem>> + Send {
        let extension = request.extensions.get::<T>();
        let id = extension.map(|extension| (self.id)(extension)).filter(|id| !id.is_empty());
        let id = id.map(|id| format!("{}:{id}", self.kind));
        std::future::ready(id.ok_or_else(|| {
            Problem::new(401, "Unauthorized").with_detail("It is not known who sends this request.")
        }))
    }
}

impl<T, F: Clone> Clone for ByExtension<T, F> {
    fn clone(&self) -> Self {
        Self { kind: self.kind, id: self.id.clone(), extension: PhantomData }
    }
}

impl<T, F> fmt::Debug for ByExtension<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByExtension").field("kind", &self.kind).finish_non_exhaustive()
    }
}
