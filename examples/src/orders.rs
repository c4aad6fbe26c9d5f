//! Orders, which run once for each `Idempotency-Key`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::{MethodRouter, post};
use derp_kv_core::{ClientId, IdempotencyLayer, KvStore, Problem, RateLimitLayer};
use serde::Deserialize;

use crate::app::{App, MAX_BODY};
use crate::body;
use crate::database::Order;
use crate::error::ApiError;
use crate::user;

const MAX_QUANTITY: u32 = 1_000;

/// `POST /orders`: 201 for the first, and the same answer, marked, for every repetition.
///
/// The layer that comes last is the outermost: a repetition is answered before it is counted for the
/// limit, so who tries again is never told to come later. An order goes on when its client goes away.
pub(crate) fn route(app: &App) -> MethodRouter<App> {
    let client = user::client(app.settings.trusted_proxies);
    let limit = limit(app, client.clone());
    let once = IdempotencyLayer::new(app.kv.clone(), client).fingerprint(fingerprint);
    post(create).route_layer(limit).route_layer(once.max_request(MAX_BODY))
}

/// How many orders each client may send.
pub(crate) fn limit<C: ClientId>(app: &App, client: C) -> RateLimitLayer<Arc<dyn KvStore>, C> {
    let limit = app.settings.order_limit.clone();
    RateLimitLayer::new(app.kv.clone(), "orders", limit, client)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    product_id: u32,
    quantity: u32,
}

/// What makes two requests the same order: not how it is written down. What is no order is refused here,
/// and leaves its key free.
fn fingerprint(_: &Parts, bytes: &Bytes) -> Result<String, Problem> {
    let NewOrder { product_id, quantity } = parse(bytes).map_err(Problem::from)?;
    Ok(format!("{quantity} of {product_id}"))
}

async fn create(
    State(app): State<App>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Order>), ApiError> {
    let NewOrder { product_id, quantity } = parse(&body::read(bytes)?)?;
    let order = app.database.place_order(product_id, quantity).await;
    let order = order.ok_or_else(|| ApiError::not_found(format!("no product {product_id}")))?;
    Ok((StatusCode::CREATED, Json(order)))
}

fn parse(bytes: &[u8]) -> Result<NewOrder, ApiError> {
    let order: NewOrder = body::parse(bytes)?;
    if !(1..=MAX_QUANTITY).contains(&order.quantity) {
        return Err(ApiError::bad_request(format!("quantity must be from 1 to {MAX_QUANTITY}")));
    }
    Ok(order)
}
