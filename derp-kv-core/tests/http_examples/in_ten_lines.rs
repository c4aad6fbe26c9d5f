use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::routing::get;
use derp_kv_core::{ByPeer, KvStore, RateLimit, RateLimitLayer};

fn peer(request: &Parts) -> Option<SocketAddr> {
    request.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
}

pub(crate) fn app(kv: impl KvStore + Clone + 'static) -> Router {
    // 100 a minute from each address, evenly, and up to 20 of them at once.
    let limit = RateLimit::smooth(100, Duration::from_secs(60)).burst(20);
    let layer = RateLimitLayer::new(kv, "orders", limit, ByPeer::new(peer));
    Router::new().route("/orders", get(|| async { "none yet" })).layer(layer)
}
