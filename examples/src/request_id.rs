//! What a request is called in the log and in traces.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Where a proxy says what it calls the request, and where the answer says what it was called.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const LONGEST: usize = 64;

/// Makes ids, each another one, that nobody can foresee.
#[derive(Debug)]
pub(crate) struct RequestIds {
    takes_sent: bool,
    keys: RandomState,
    made: AtomicU64,
}

impl RequestIds {
    /// With `takes_sent`, what a request brings along may be its id.
    pub(crate) fn new(takes_sent: bool) -> Self {
        Self { takes_sent, keys: RandomState::new(), made: AtomicU64::new(0) }
    }

    /// The id that the request brings along, if it is taken and is one, for it goes into the log. Else a new
    /// one.
    pub(crate) fn of(&self, headers: &HeaderMap) -> String {
        let sent = headers.get(HEADER).filter(|_| self.takes_sent);
        let sent = sent.and_then(|id| id.to_str().ok()).filter(|id| is_sane(id));
        sent.map_or_else(|| self.make(), str::to_owned)
    }

    fn make(&self) -> String {
        format!("{:016x}", self.keys.hash_one(self.made.fetch_add(1, Ordering::Relaxed)))
    }
}

fn is_sane(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LONGEST).contains(&id.len()) && id.bytes().all(allowed)
}

/// The value of the header.
pub(crate) fn header(id: &str) -> HeaderValue {
    // Whatever is an id is also the value of a header.
    HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_taken_and_any_other_is_replaced() {
        let [ids, wary] = [true, false].map(RequestIds::new);
        let of = |sent: &[u8]| {
            let value = HeaderValue::from_bytes(sent).unwrap();
            ids.of(&HeaderMap::from_iter([(HEADER, value)]))
        };
        let longest = "a".repeat(64);
        for id in ["7", "8e03978e-40d5-43e8-bc93-6894a57f9324", "a_B-9", &longest] {
            assert_eq!(of(id.as_bytes()), id);
            let value = HeaderValue::from_str(id).unwrap();
            assert_ne!(wary.of(&HeaderMap::from_iter([(HEADER, value)])), id);
        }
        let too_long = "a".repeat(65);
        for id in ["", "a b", "a\tb", "a=b", "\"", "k\u{e4}", "\u{1f600}", &too_long] {
            let made = of(id.as_bytes());
            assert!(made != id && is_sane(&made), "{id}: {made}");
        }
    }

    #[test]
    fn each_id_is_another_one() {
        let ids = RequestIds::new(false);
        let made: std::collections::BTreeSet<_> =
            (0..1000).map(|_| ids.of(&HeaderMap::new())).collect();
        assert_eq!(made.len(), 1000);
        assert_ne!(ids.make(), RequestIds::new(false).make());
    }
}
