//! Product pages, from the cache where they are there, and changes of products.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use derp_kv_core::{Cache, Freshness, Got, GuardedGet, KvStore, Source};
use serde::Deserialize;

use crate::access::Cached;
use crate::app::App;
use crate::body;
use crate::cache_status;
use crate::database::{Product, QUERY_TIMEOUT};
use crate::error::ApiError;

/// Products as the database has them, and which ids it has not.
pub(crate) type Products = Cache<Arc<dyn KvStore>, Option<Product>>;

/// For so long a product is fresh.
const FRESH: Duration = Duration::from_secs(300);

/// For so long after that it is shown as it was while it is read anew, and while the database fails.
pub(crate) const STALE: Duration = Duration::from_secs(2 * 3600);

/// How products are cached.
pub(crate) const CACHED: GuardedGet = GuardedGet::new(FRESH)
    .stale(STALE)
    // Longer than any query: while one hangs, nobody makes another.
    .lock_ttl(QUERY_TIMEOUT.saturating_add(Duration::from_secs(1)));

/// That there is no such product is fresh for a shorter time. Whoever adds one makes it known at once by
/// invalidating its id, as [`forget`] does.
const ABSENT_TTL: Duration = Duration::from_secs(30);

const MAX_NAME: usize = 200;
const MAX_PRICE_CENTS: u64 = 100_000_000;

pub(crate) fn cache(kv: Arc<dyn KvStore>, options: GuardedGet) -> Products {
    Cache::new(kv, PREFIX, options).absent_ttl(ABSENT_TTL)
}

/// What the cache adds to the id of a product for its key.
const PREFIX: &str = "product:";

/// The key under which a product is cached: documented by [`Cache`], and here for who looks at it from
/// the outside.
pub(crate) fn key(id: u32) -> String {
    format!("{PREFIX}{id}")
}

/// `GET /products/{id}`: however many ask at once, the database is asked once, and nobody waits for a
/// product that was there before. `Cache-Status` tells where the answer comes from.
pub(crate) async fn show(
    State(app): State<App>,
    id: Result<Path<u32>, PathRejection>,
) -> Result<Response, ApiError> {
    let id = number(id)?;
    let got = look_up(&app, id).await?;
    if let Some(page) = &app.settings.page {
        page.look_at(id).await;
    }
    let status = [(cache_status::NAME, cache_status::of(&got))];
    let cached = match (got.freshness, got.source) {
        (Freshness::Stale { .. }, _) => "stale",
        (_, Source::Store) => "hit",
        (_, Source::Joined) => "joined",
        _ => "computed",
    };
    let answer = got.value.map(Json).ok_or_else(|| not_found(id));
    Ok((Extension(Cached(cached)), status, answer).into_response())
}

/// A product, where it comes from and whether it is fresh.
pub(crate) async fn look_up(app: &App, id: u32) -> Result<Got<Option<Product>>, ApiError> {
    let database = app.database.clone();
    let read = move |_stale| async move { database.product(id).await.map_err(ApiError::from) };
    app.products.get_detailed(id.to_string(), read).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    name: String,
    price_cents: u64,
}

/// `PUT /products/{id}`: changes a product. The next reader gets it as it is now, and no reader who is
/// under way can bring the old one back. Like [`forget`] it stands for an administrator's call; a real
/// service lets nobody else make it.
///
/// The replica that readers ask never lags here. With one that does, read from the primary after a
/// change, or invalidate again once the lag has passed.
///
/// It invalidates what is cached, after the write, and does not `put` the new product there: of two
/// changes at once the database keeps the one that it wrote last, and the cache would keep the one that
/// came last to it, which may be the other.
///
/// Where the store fails after the write, the answer is 503, and the client repeats the change.
pub(crate) async fn change(
    State(app): State<App>,
    id: Result<Path<u32>, PathRejection>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Product>, ApiError> {
    let id = number(id)?;
    let Change { name, price_cents } = checked(body::parse(&body::read(bytes)?)?)?;
    let worker = app.clone();
    // To its end, also when the client goes away: the write alone would leave the old product cached.
    let changed = app.detached(async move {
        let product = worker.database.change_product(id, name, price_cents).await;
        worker.products.invalidate(id.to_string()).await?;
        Ok(product)
    });
    changed.await?.map(Json).ok_or_else(|| not_found(id))
}

/// `DELETE /products/{id}/cached`: the next reader gets the product as the database has it, whoever
/// changed or added it there, and also where the last query for it has failed.
pub(crate) async fn forget(
    State(app): State<App>,
    id: Result<Path<u32>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    app.products.invalidate(number(id)?.to_string()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn checked(change: Change) -> Result<Change, ApiError> {
    let Change { name, price_cents } = &change;
    let letters = name.chars().count();
    if name.trim().is_empty() || letters > MAX_NAME || name.chars().any(char::is_control) {
        let message = format!("name must be 1 to {MAX_NAME} characters, and no control characters");
        return Err(ApiError::bad_request(message));
    }
    if *price_cents > MAX_PRICE_CENTS {
        let message = format!("price_cents must be from 0 to {MAX_PRICE_CENTS}");
        return Err(ApiError::bad_request(message));
    }
    Ok(change)
}

fn number(id: Result<Path<u32>, PathRejection>) -> Result<u32, ApiError> {
    let Path(id) = id.map_err(|_| ApiError::bad_request("the product id must be a number"))?;
    Ok(id)
}

fn not_found(id: u32) -> ApiError {
    ApiError::not_found(format!("no product {id}"))
}
