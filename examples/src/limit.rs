//! The rate limit of orders.

use axum::http::StatusCode;
use derp_kv_core::KvStoreExt;

use crate::app::App;
use crate::error::ApiError;
use crate::user::User;

/// Counts one order of `user`, and refuses it with 429 above the limit.
pub(crate) async fn check(app: &App, user: &User) -> Result<(), ApiError> {
    let id = format!("checkout:{}:orders", user.0);
    let status = app.kv.rate_limit(id, &app.settings.order_limit).await?;
    if status.allowed {
        return Ok(());
    }
    let message = format!("at most {} orders in this window", status.limit);
    let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
    // A limit of 0 allows none, however long anybody waits.
    Err(match status.retry_after_secs() {
        Some(seconds) => error.retry_after_secs(seconds),
        None => error,
    })
}
