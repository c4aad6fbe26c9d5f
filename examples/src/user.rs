//! Who is asking.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;

use crate::error::ApiError;

/// The caller: `user:…` from the header `X-User`, else `ip:…` of the connection.
///
/// The header stands for what a session or a token would prove; a service that reads a bare name
/// from its clients trusts them too much.
#[derive(Clone, Debug)]
pub(crate) struct User(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        if let Some(name) = parts.headers.get("x-user") {
            let name = name.to_str().ok().filter(|name| is_id(name, 64));
            let name = name.ok_or_else(|| {
                ApiError::bad_request("X-User must be 1 to 64 letters, digits, `.`, `_` or `-`")
            })?;
            return Ok(Self(format!("user:{name}")));
        }
        let peer = ConnectInfo::<SocketAddr>::from_request_parts(parts, state).await;
        let ConnectInfo(peer) = peer.map_err(|_| ApiError::internal())?;
        Ok(Self(format!("ip:{}", peer.ip())))
    }
}

/// Whether `text` can be a part of a key without joining to another one: no separators in it.
pub(crate) fn is_id(text: &str, longest: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=longest).contains(&text.len()) && text.bytes().all(allowed)
}
