//! Who is asking.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::HeaderName;
use axum::http::request::Parts;
use derp_kv_core::{ByHeader, ByPeer, ClientId};

/// The user of the header `X-User`, else the address of the client.
///
/// The header stands for what a session or a token would prove; a service that reads a bare name from its
/// clients trusts them too much.
pub(crate) fn client(trusted_proxies: usize) -> impl ClientId {
    let user = ByHeader::new(HeaderName::from_static("x-user"));
    user.or(ByPeer::new(peer).trusted_proxies(trusted_proxies))
}

fn peer(request: &Parts) -> Option<SocketAddr> {
    request.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
}
