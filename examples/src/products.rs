//! Product pages, from the cache where they are there.

use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use derp_kv_core::{GuardedGet, KvStoreExt};

use crate::app::App;
use crate::error::ApiError;

const TTL: Duration = Duration::from_secs(300);

/// `GET /products/{id}`: however many ask at once, the database is asked once.
pub(crate) async fn show(
    State(app): State<App>,
    id: Result<Path<u32>, PathRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Path(id) = id.map_err(|_| ApiError::bad_request("the product id must be a number"))?;
    let page = app
        .kv
        .guarded_get(format!("product:{id}"), GuardedGet::ttl(TTL), || async {
            // An error is not cached: a product that is added later shows at once.
            let product = app.database.product(id).await;
            let product = product.ok_or_else(|| ApiError::not_found(format!("no product {id}")))?;
            serde_json::to_vec(&product).map_err(|_| ApiError::internal())
        })
        .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], page))
}
