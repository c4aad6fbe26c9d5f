use axum::http::HeaderMap;
use serde_json::Value;

/// Where senders name an event in a header: Standard Webhooks, Svix, GitHub, Shopify, CloudEvents.
/// A header goes before the body, which may hold the id of what the event is about.
const IDS: [&str; 5] =
    ["webhook-id", "svix-id", "x-github-delivery", "x-shopify-event-id", "ce-id"];

/// Where senders name it in the body: most of them, and Telegram.
const IDS_IN_BODY: [&str; 2] = ["id", "update_id"];

/// Where senders say what happened in a header: GitHub, Shopify, CloudEvents.
const KINDS: [&str; 3] = ["x-github-event", "x-shopify-topic", "ce-type"];

/// What happened, as the sender calls it; empty where it does not say.
///
/// The body goes first, for it is signed and the headers are not.
pub(crate) fn kind(headers: &HeaderMap, body: &Value) -> String {
    let in_body = body["type"].as_str().map(str::to_owned);
    in_body.or_else(|| KINDS.iter().find_map(|name| text(headers, name))).unwrap_or_default()
}

/// What tells an event from all others of its sender: text of any kind, or a number; of CloudEvents, whose
/// ids are unique for their source only, also that.
pub(crate) fn id(headers: &HeaderMap, body: &Value) -> Option<Vec<String>> {
    let id = IDS.iter().find_map(|name| text(headers, name));
    let id = id.or_else(|| IDS_IN_BODY.iter().find_map(|name| text_or_number(&body[name])))?;
    Some(source(headers, body).into_iter().chain([id]).collect())
}

fn source(headers: &HeaderMap, body: &Value) -> Option<String> {
    let in_body = || body.get("specversion").and_then(|_| body["source"].as_str());
    text(headers, "ce-source").or_else(|| in_body().map(str::to_owned))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn text_or_number(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
