//! Whatever a client sends for a key and whatever stands in the store: never a panic, and never work that
//! nobody guards.

use axum::body::Body;
use axum::http::{HeaderValue, Request};
use derp_kv_core::KvStore;
use derp_kv_memory::MemoryStore;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::stage::{Counter, PATH, app, call, created, id, layer, order};

/// Bytes of which many mean something where they stand.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => prop::sample::select(&b"k\"\\;=, /%{}\t"[..]),
        1 => any::<u8>(),
    ];
    prop_oneof![
        prop::collection::vec(byte, 0..12),
        (0..300_usize).prop_map(|length| vec![b'k'; length]),
        (0..300_usize).prop_map(|length| [b"\"", &vec![b'k'; length][..], b"\""].concat()),
    ]
}

/// What is almost a record.
fn record() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(
        &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"status_code\"",
            "\"body\"",
            "\"headers\"",
            "\"encoding\"",
            "\"json\"",
            "\"base64\"",
            "\"omitted\"",
            "\"fingerprint\"",
            "201",
            "99",
            "700",
            "-1",
            "1e400",
            "null",
            "true",
            "\"YQ==\"",
            "\"link\"",
            "\"\\ud800\"",
            "\"\\u0000\"",
            "\u{0}",
            " ",
        ][..],
    );
    let status =
        prop_oneof![any::<u16>().prop_map(|status| status.to_string()), Just("x".to_owned())];
    let name = prop_oneof![Just("link".to_owned()), any::<String>()];
    let header = (name, any::<String>());
    let whole = (status, any::<String>(), prop::collection::vec(header, 0..4), 0..3_usize);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        prop::collection::vec(part, 0..20).prop_map(|parts| parts.concat().into_bytes()),
        whole.prop_map(|(status, body, headers, encoding)| {
            let encoding = ["json", "base64", "zip"][encoding];
            let (body, headers) = (serde_json::json!(body), serde_json::json!(headers));
            format!(
                r#"{{"status_code":{status},"body":{body},"headers":{headers},"encoding":"{encoding}"}}"#
            )
            .into_bytes()
        }),
    ]
}

proptest! {
    #[test]
    fn every_header_is_a_key_or_is_refused(lines in prop::collection::vec(line(), 0..3)) {
        let values: Result<Vec<_>, _> =
            lines.iter().map(|line| HeaderValue::from_bytes(line)).collect();
        prop_assume!(values.is_ok());
        let values = values.unwrap();
        let calls = Counter::default();
        let handler = {
            let calls = calls.clone();
            async move || created(calls.add())
        };
        let app = app(handler).layer(layer(MemoryStore::new()));
        let answers = Runtime::new().unwrap().block_on(async {
            let mut answers = Vec::new();
            for _ in 0..2 {
                let mut request = Request::post(PATH).body(Body::empty()).unwrap();
                for value in &values {
                    request.headers_mut().append("idempotency-key", value.clone());
                }
                answers.push(call(&app, request).await);
            }
            answers
        });
        match answers[0].status {
            400 => prop_assert_eq!((answers[1].status, calls.get()), (400, 0)),
            status => {
                prop_assert_eq!((status, values.len(), calls.get()), (201, 1, 1));
                prop_assert!(answers[1].is_replay());
            }
        }
    }

    #[test]
    fn every_record_is_replayed_or_refused(record in record()) {
        let calls = Counter::default();
        let handler = {
            let calls = calls.clone();
            async move || created(calls.add())
        };
        let kv = MemoryStore::new();
        let app = app(handler).layer(layer(kv.clone()));
        let answer = Runtime::new().unwrap().block_on(async {
            let key = format!("derp:idempotency:{}", id("k"));
            kv.set(key.as_bytes(), &record, None).await.unwrap();
            call(&app, order("k", "")).await
        });
        prop_assert_eq!(calls.get(), 0);
        prop_assert!(answer.is_replay() || matches!(answer.status, 409 | 422 | 500), "{answer:?}");
    }
}
