use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use derp_kv_core::{Dedup, KvStoreExt, Processed, id_of};
use serde::Deserialize;
use serde_json::{Value, json};

use super::event;
use super::senders::NotTrusted;
use crate::app::App;
use crate::body;
use crate::error::ApiError;

/// Longer than the senders' schedules, which end after three days at Stripe and 75 h 35 min in Standard
/// Webhooks.
const REMEMBERED: Duration = Duration::from_secs(4 * 24 * 3600);

/// An event that fails so often is not delivered again. In the schedule of Standard Webhooks the eighth
/// attempt comes after 31 hours, so that an outage of a day gives nothing up.
const ATTEMPTS: u32 = 8;

/// `POST /webhooks/{sender}`: each event has its effect once.
///
/// Whatever is not 2xx makes the sender deliver the event again, for days. So an event that this service
/// has no use for is acknowledged; one that cannot be handled now, as while the store is down, is not.
pub(crate) async fn receive(
    State(app): State<App>,
    sender: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(sender) = sender.map_err(|_| NotTrusted::Unknown)?;
    // The signature is that of these bytes, and not of what they mean.
    let bytes = body::read(bytes)?;
    let signed_id = app.settings.senders.verify(&sender, &headers, &bytes)?;
    // Not every sender writes JSON, and those that do not have nothing that is handled here.
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let kind = event::kind(&headers, &body);
    let id = || {
        let id = signed_id.map(|id| vec![id]).or_else(|| event::id(&headers, &body));
        let id = id.ok_or_else(|| ApiError::bad_request("the event has no id"))?;
        Ok::<_, ApiError>(id_of(&[vec![sender, kind.clone()], id].concat()))
    };
    let duplicate = match kind.as_str() {
        "payment.succeeded" => payment(&app, id()?, bytes).await?,
        "page.viewed" => notice(&app, &id()?).await?,
        _ => return Ok(Json(json!({ "ignored": true }))),
    };
    Ok(Json(json!({ "duplicate": duplicate })))
}

#[derive(Deserialize)]
struct Payment {
    amount_cents: u64,
}

/// Money must not be lost: an event whose handler fails is not marked, and the sender's next
/// delivery runs it. While one delivery is handled another gets 409, and comes back later.
async fn payment(app: &App, id: String, body: Bytes) -> Result<bool, ApiError> {
    let worker = app.clone();
    let processed = app
        .detached(async move {
            let book = || async {
                let Payment { amount_cents } = body::parse(&body)?;
                worker.database.book_payment(amount_cents).await;
                Ok::<_, ApiError>(())
            };
            let options = Dedup::default().ttl(REMEMBERED).give_up_after(ATTEMPTS);
            let processed = worker.kv.process_once(&id, &options, book).await?;
            if let Processed::GivenUp { attempts } = processed {
                // The one line that names an id: somebody must look the event up.
                tracing::error!(attempts, event = id, "a webhook was given up");
            }
            Ok(processed)
        })
        .await?;
    Ok(processed != Processed::Now(()))
}

/// A statistic may lose one: the event is marked before it is counted, in a single command.
async fn notice(app: &App, id: &str) -> Result<bool, ApiError> {
    let duplicate = app.kv.already_processed(id, &Dedup::default().ttl(REMEMBERED)).await?;
    if !duplicate {
        app.database.count_notice();
    }
    Ok(duplicate)
}

impl From<NotTrusted> for ApiError {
    fn from(reason: NotTrusted) -> Self {
        let status = match reason {
            NotTrusted::Unknown => StatusCode::NOT_FOUND,
            NotTrusted::Refused(_) => StatusCode::FORBIDDEN,
        };
        Self::new(status, reason.to_string())
    }
}
