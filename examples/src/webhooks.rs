//! Webhooks, which senders deliver more than once.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use derp_kv_core::{Dedup, KvStoreExt, Processed};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::orders::{parse, read_body};
use crate::user::is_id;

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
}

/// `POST /webhooks`: each event has its effect once.
///
/// A real endpoint verifies the sender's signature over the body first, before it parses it, and
/// has a limit as `/orders` does. This one trusts whoever calls it: anybody can fake a payment, and
/// fill the store with events.
pub(crate) async fn receive(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let event: Event = parse(&read_body(body)?)?;
    if !is_id(&event.id, 255) {
        let message = "id must be 1 to 255 letters, digits, `.`, `_` or `-`";
        return Err(ApiError::bad_request(message));
    }
    let duplicate = match event.kind.as_str() {
        "payment.succeeded" => payment(&app, format!("{}:payment", event.id)).await?,
        "page.viewed" => notice(&app, &format!("{}:view", event.id)).await?,
        _ => return Err(ApiError::bad_request("type must be payment.succeeded or page.viewed")),
    };
    Ok(Json(json!({ "duplicate": duplicate })))
}

/// Money must not be lost: an event whose handler fails is not marked, and the sender's next
/// delivery runs it. While one delivery is handled another gets 409, and comes back later.
async fn payment(app: &App, id: String) -> Result<bool, ApiError> {
    let worker = app.clone();
    let processed = app
        .detached(async move {
            let book = || async {
                worker.database.book_payment().await;
                Ok::<_, ApiError>(())
            };
            worker.kv.process_once(id, &Dedup::default(), book).await
        })
        .await?;
    Ok(processed == Processed::Before)
}

/// A statistic may lose one: the event is marked before it is counted, in a single command.
async fn notice(app: &App, id: &str) -> Result<bool, ApiError> {
    let duplicate = app.kv.already_processed(id, &Dedup::default()).await?;
    if !duplicate {
        app.database.count_notice();
    }
    Ok(duplicate)
}
