use ::http::HeaderName;
use ::http::request::Parts;
use sha2::{Digest, Sha256};

use crate::coordinate::token::hex;
use crate::http::problem::Problem;
use crate::http::tower::client_id::ClientId;

/// Takes a request for that of the client that a header names, such as an API key.
///
/// The id is `header:`, the header's name, and a SHA-256 hash of its value: a value that is a secret is
/// kept nowhere, and one that is huge or binary is as good as any other.
///
/// Whoever writes another value is another client. Let an outer layer refuse values that you did not
/// give out, or limit such requests by [their address](crate::ByPeer), too.
///
/// # Refusals
///
/// 401 where the header is missing, and 400 where it is empty or there more than once.
///
/// # Which headers
///
/// The bytes of the value count: where one credential can be written in several ways, such as
/// `Authorization` in capitals or not, each is another client. And where it changes over time, such as
/// a token that is refreshed, a client becomes another one, and its idempotency keys with it. Take
/// [`ByExtension`](crate::ByExtension) with what the credential stands for.
///
/// # Examples
///
/// ```
/// use derp_kv_core::ByHeader;
/// use http::HeaderName;
///
/// let client = ByHeader::new(HeaderName::from_static("x-api-key"));
/// # let _ = client;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHeader {
    name: HeaderName,
}

impl ByHeader {
    /// The client is who sends this value of the header `name`.
    #[must_use]
    pub fn new(name: HeaderName) -> Self {
        Self { name }
    }

    fn id(&self, request: &Parts) -> Result<String, Problem> {
        let mut values = request.headers.get_all(&self.name).iter();
        let value = values.next().filter(|value| !value.is_empty());
        match (value, values.next()) {
            (Some(value), None) => {
                let hash = hex(&Sha256::digest(value.as_bytes()));
                Ok(format!("header:{}:{hash}", self.name))
            }
            (None, None) if !request.headers.contains_key(&self.name) => {
                Err(Problem::new(401, "Unauthorized")
                    .with_detail(format!("The header `{}` must be sent.", self.name)))
            }
            _ => Err(Problem::new(400, "Bad Request")
                .with_detail(format!("The header `{}` must be sent, once.", self.name))),
        }
    }
}

impl ClientId for ByHeader {
    fn client_id(&self, request: &Parts) -> impl Future<Output = Result<String, Problem>> + Send {
        std::future::ready(self.id(request))
    }
}
