use axum::http::HeaderMap;

use super::refusal::Refusal;

/// An id of up to this many bytes is a name for an event; the ids of real senders have 20 to 60.
const MAX_ID: usize = 255;

/// The header `name`, which must be there once.
pub(super) fn one<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(Refusal::Missing(name)),
        (Some(value), None) => value.to_str().map_err(|_| Refusal::Malformed(name)),
        _ => Err(Refusal::Repeated(name)),
    }
}

/// The header `name`, which must hold an id.
pub(super) fn id<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Refusal> {
    one(headers, name).and_then(|id| is_id(id).then_some(id).ok_or(Refusal::Malformed(name)))
}

pub(super) fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
}
