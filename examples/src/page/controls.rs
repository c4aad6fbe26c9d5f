//! What the buttons of the page do that no client of a shop should.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use derp_kv_core::{ClientId as _, Freshness, Got, Problem, Source};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use super::state::Herd;
use super::{PRODUCTS, Page};
use crate::app::App;
use crate::body;
use crate::database::Replica;
use crate::error::ApiError;
use crate::products::{STALE, key, look_up};
use crate::{orders, user};

/// How many requests a herd has.
const HERD: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    replica: Replica,
}

/// `POST /page/database` with `{"replica":"fails"}`: lets the database that products are read from work, be
/// slow, fail or hang.
pub(crate) async fn database(
    State(app): State<App>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let Switch { replica } = body::parse(&body::read(bytes)?)?;
    app.database.set_replica(replica);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    product: u32,
}

fn which(bytes: Result<Bytes, BytesRejection>) -> Result<u32, ApiError> {
    let Which { product } = body::parse(&body::read(bytes)?)?;
    if !PRODUCTS.contains(&product) {
        return Err(ApiError::bad_request(format!("product must be one of {PRODUCTS:?}")));
    }
    Ok(product)
}

/// `POST /page/herd` with `{"product":42}`: invalidates a product, and then asks for it 200 times at once, as
/// 200 clients would. A browser opens six connections to a server, so it cannot do this itself.
pub(crate) async fn herd(
    Extension(page): Extension<Page>,
    State(app): State<App>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Herd>, ApiError> {
    let product = which(bytes)?;
    let worker = app.clone();
    // To its end, also when the browser goes away: the page would show it as under way for ever.
    app.detached(async move {
        let Ok(_one) = page.0.herd.try_lock() else {
            let problem = Problem::new(409, "Conflict").with_detail("a herd is under way");
            return Err(problem.into());
        };
        worker.products.invalidate(product.to_string()).await?;
        let mut herd = Herd { product, requests: HERD, outcomes: None, queries: 0 };
        page.0.feed.herd(herd.clone());
        let before = worker.database.stats().queries;
        let answers = join_all((0..HERD).map(|_| look_up(&worker, product))).await;
        herd.queries = worker.database.stats().queries - before;
        let mut outcomes = BTreeMap::new();
        for answer in &answers {
            *outcomes.entry(answer.as_ref().map_or("failed", outcome)).or_default() += 1;
        }
        herd.outcomes = Some(outcomes);
        page.0.feed.herd(herd.clone());
        Ok(Json(herd))
    })
    .await
}

/// What a request came to, as the library's observer calls it.
fn outcome<T>(got: &Got<T>) -> &'static str {
    match (got.source, got.freshness) {
        (Source::Computed, _) => "computed",
        (_, Freshness::Stale { .. }) => "stale",
        (Source::Joined, _) => "joined",
        _ => "hit",
    }
}

/// `POST /page/age` with `{"product":42}`: lets what is cached grow old now.
///
/// The age of a value is what is left of its key, which stays for [`STALE`] after its TTL: so this is one call
/// of the library, and what comes after it is what comes after five minutes.
pub(crate) async fn age(
    State(app): State<App>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let product = which(bytes)?;
    let was_cached = app.kv.expire(key(product).as_bytes(), STALE).await?;
    Ok(Json(json!({ "was_cached": was_cached })))
}

/// `GET /page/limit`: how many orders this client may still send. It counts nothing.
pub(crate) async fn limit(
    State(app): State<App>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let client = user::client(app.settings.trusted_proxies);
    let (parts, _) = request.into_parts();
    let id = client.client_id(&parts).await?;
    let layer = orders::limit(&app, client);
    let status = layer.limiter().peek(layer.id(&id)).await?;
    Ok(Json(json!({
        "limit": status.limit,
        "remaining": status.remaining,
        "reset_ms": u64::try_from(status.reset_after.as_millis()).unwrap_or(u64::MAX),
    })))
}
