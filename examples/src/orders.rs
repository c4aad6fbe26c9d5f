//! Orders, which run once for each `Idempotency-Key`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use derp_kv_core::{Idempotency, KvStoreExt, Outcome};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::database::Order;
use crate::error::ApiError;
use crate::limit;
use crate::user::{User, is_id};

const MAX_QUANTITY: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    product_id: u32,
    quantity: u32,
}

/// `POST /orders`: 201 for the first, and the same answer, marked, for every repetition.
pub(crate) async fn create(
    State(app): State<App>,
    user: User,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    limit::check(&app, &user).await?;
    let key = idempotency_key(&headers)?;
    let body = read_body(body)?;
    let order: NewOrder = parse(&body)?;
    if !(1..=MAX_QUANTITY).contains(&order.quantity) {
        return Err(ApiError::bad_request(format!("quantity must be from 1 to {MAX_QUANTITY}")));
    }

    // No two requests can join to one id: the key and the route hold no colon.
    let id = format!("{}:{key}:POST /orders", user.0);
    let options = Idempotency::default().status_code(201).fingerprint(&body);
    let worker = app.clone();
    let outcome: Outcome<Order> = app
        .detached(async move {
            let place = || async {
                let placed = worker.database.place_order(order.product_id, order.quantity).await;
                placed
                    .ok_or_else(|| ApiError::not_found(format!("no product {}", order.product_id)))
            };
            worker.kv.idempotent_execute(id, &options, place).await
        })
        .await?;

    let status = StatusCode::from_u16(outcome.status_code).unwrap_or(StatusCode::CREATED);
    let mut response = (status, Json(outcome.body)).into_response();
    if outcome.is_replay {
        let yes = HeaderValue::from_static("true");
        response.headers_mut().insert("idempotent-replayed", yes);
    }
    Ok(response)
}

/// The one `Idempotency-Key`, with or without the quotes that the draft standard asks for.
fn idempotency_key(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(ApiError::bad_request("send one Idempotency-Key header"));
    };
    let text = value.to_str().unwrap_or_default();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if !is_id(text, 255) {
        let message = "Idempotency-Key must be 1 to 255 letters, digits, `.`, `_` or `-`";
        return Err(ApiError::bad_request(message));
    }
    Ok(text.to_owned())
}

pub(crate) fn read_body(body: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body must be at most {} bytes", crate::app::MAX_BODY),
        ),
        _ => ApiError::bad_request("the body could not be read"),
    })
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::bad_request(format!("body: {error}")))
}
