use std::fmt;
use std::sync::Arc;

use ::http::header::CONTENT_TYPE;
use ::http::request::Parts;
use bytes::Bytes;
use sha2::digest::Output;
use sha2::{Digest, Sha256};

use crate::coordinate::token::hex;
use crate::http::problem::Problem;

/// Tells what a request is: of requests with one idempotency key, those with the same fingerprint are tries of
/// one request, and another one is refused.
#[derive(Clone, Default)]
pub(crate) struct Fingerprint(Option<Custom>);

type Custom = Arc<dyn Fn(&Parts, &Bytes) -> Result<Vec<u8>, Problem> + Send + Sync>;

impl Fingerprint {
    pub(crate) fn custom<F, T>(fingerprint: F) -> Self
    where
        F: Fn(&Parts, &Bytes) -> Result<T, Problem> + Send + Sync + 'static,
        T: Into<Vec<u8>>,
    {
        Self(Some(Arc::new(move |parts, body| fingerprint(parts, body).map(Into::into))))
    }

    /// A SHA-256 hash of it, in hexadecimal digits.
    pub(crate) fn of(&self, parts: &Parts, body: &Bytes) -> Result<String, Problem> {
        let hash = match &self.0 {
            Some(custom) => Sha256::digest(custom(parts, body)?),
            None => as_sent(parts, body),
        };
        Ok(hex(&hash))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Custom" } else { "AsSent" })
    }
}

/// A hash of what was sent. Each part is framed by its length, so that none can pass for its neighbour.
fn as_sent(parts: &Parts, body: &Bytes) -> Output<Sha256> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let content_type = parts.headers.get(CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
    let mut hasher = Sha256::new();
    for part in [parts.method.as_str().as_bytes(), target.as_bytes(), content_type, body] {
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;

    fn of(method: &str, target: &str, content_type: Option<&str>, body: &'static str) -> String {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Fingerprint::default().of(&parts, &Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[test]
    fn each_part_counts_and_none_passes_for_another() {
        let requests = [
            of("POST", "/orders", None, "{}"),
            of("PATCH", "/orders", None, "{}"),
            of("POST", "/order", None, "{}"),
            of("POST", "/orders?draft=1", None, "{}"),
            of("POST", "/orders", Some("text/plain"), "{}"),
            of("POST", "/orders", Some("{}"), ""),
            of("POST", "/orders", None, "{ }"),
        ];
        for (at, one) in requests.iter().enumerate() {
            assert!(requests[at + 1..].iter().all(|other| other != one), "request {at}");
        }
        assert_eq!(requests[0], of("POST", "https://example.com/orders", None, "{}"));
    }
}
