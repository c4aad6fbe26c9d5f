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
        .guarded_get(format!("product:{id}"), &GuardedGet::new(TTL), || async {
            // An absence is an answer, not an error: it is asked for once, too. Whoever adds a
            // product invalidates its key.
            let product = app.database.product(id).await;
            serde_json::to_vec(&product).map_err(|_| ApiError::internal())
        })
        .await?;
    if page == "null" {
        return Err(ApiError::not_found(format!("no product {id}")));
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], page))
}
