//! Whole responses as answers: replayed byte for byte, kept by policy, and read from others' records.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use common::process;
use derp_kv_core::{Error, ErrorKind, Idempotency, KvStore, KvStoreExt, Outcome, Reply, Result};
use derp_kv_memory::MemoryStore;
use proptest::prelude::*;
use serde_json::{Value, json};

const RECORD: &[u8] = b"derp:idempotency:k";
const LOCK: &[u8] = b"derp:idempotency:k:lock";

async fn answer(kv: &MemoryStore, options: &Idempotency, reply: &Reply) -> Result<Outcome<Reply>> {
    kv.idempotent_execute("k", options, || async { Ok(reply.clone()) }).await
}

/// Reads what is there, and runs no work.
async fn replay(kv: &MemoryStore) -> Result<Reply> {
    let options = Idempotency::default();
    let work = || async { Err(Error::new(ErrorKind::Backend, "the work ran")) };
    process(kv).idempotent_execute("k", &options, work).await.map(|outcome: Outcome<Reply>| {
        assert!(outcome.is_replay && outcome.status_code == outcome.body.status_code);
        outcome.body
    })
}

fn a_body() -> impl Strategy<Value = Vec<u8>> {
    let json = prop_oneof![
        Just(r#"{"a":1}"#),
        Just("{ \"a\" : 123456789.12345679, \"a\": 1e999 }"),
        Just(" {}"),
        Just("[]\n"),
        Just("null"),
        Just("\"\\ud800\""),
        Just("\"\u{1F600}\""),
        Just("1.0000000000000000000000000000000001"),
        Just("{\"a\":"),
        Just(""),
    ];
    prop_oneof![
        json.prop_map(|json| json.as_bytes().to_vec()),
        (0..2_000_usize).prop_map(|depth| "[".repeat(depth).into_bytes()),
        (1..300_usize)
            .prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth)).into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_replay_is_the_same_byte_for_byte(
        body in a_body(),
        headers in proptest::collection::vec(
            ("[a-z-]{0,10}", proptest::collection::vec(any::<u8>(), 0..20)),
            0..6,
        ),
        status_code in prop_oneof![200..400_u16, Just(404), Just(422)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let kv = MemoryStore::new();
            let mut reply = Reply::new(status_code, body.clone());
            for (name, value) in headers {
                reply = reply.header(name, value);
            }
            let first = answer(&kv, &Idempotency::default(), &reply).await.unwrap();
            assert!(!first.is_replay && first.body == reply && first.status_code == status_code);
            assert_eq!(replay(&kv).await.unwrap(), reply);
            // A body that is JSON stands in the record as JSON, for other libraries to read.
            let record = kv.get(RECORD).await.unwrap().unwrap();
            let is_json = serde_json::from_slice::<&serde_json::value::RawValue>(&body)
                .is_ok_and(|json| json.get().len() == body.len());
            let nested = body.starts_with(b"[") && body.len() > 2 * 126;
            let is_json = is_json && !nested;
            let encoding = if is_json { "\"json\"" } else { "\"base64\"" };
            let record = std::str::from_utf8(&record).unwrap();
            assert!(record.contains(&format!("\"encoding\":{encoding}")), "{record}");
        });
    }

    /// A record that anybody wrote is an answer or an error, and lets nothing run.
    #[test]
    fn a_hostile_record_runs_nothing(
        record in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            (any::<u32>(), a_body(), "[a-z0-9]{0,8}", ".{0,20}").prop_map(
                |(status, body, encoding, headers)| {
                    let body = String::from_utf8_lossy(&body).into_owned();
                    let record = format!(
                        r#"{{"status_code":{status},"body":{body},"encoding":"{encoding}","headers":{headers}}}"#
                    );
                    record.into_bytes()
                }
            ),
        ],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let kv = MemoryStore::new();
            kv.set(RECORD, &record, None).await.unwrap();
            if let Err(error) = replay(&kv).await {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            }
            assert_eq!(kv.get(RECORD).await.unwrap().unwrap(), record);
        });
    }
}

#[tokio::test]
async fn the_record_is_as_documented() {
    let kv = MemoryStore::new();
    let reply = Reply::new(201, r#"{"order": 1}"#)
        .header("location", "/orders/1")
        .header("link", "</a>")
        .header("link", &b"</\xe9>"[..]);
    answer(&kv, &Idempotency::default(), &reply).await.unwrap();
    let record = kv.get(RECORD).await.unwrap().unwrap();
    assert_eq!(
        std::str::from_utf8(&record).unwrap(),
        "{\"status_code\":201,\"body\":{\"order\": 1},\"headers\":[[\"location\",\"/orders/1\"],\
         [\"link\",\"</a>\"],[\"link\",\"</\u{e9}>\"]],\"encoding\":\"json\"}",
    );
    kv.delete(RECORD).await.unwrap();
    answer(&kv, &Idempotency::default().fingerprint("a"), &Reply::new(200, &b"\x00\xff"[..]))
        .await
        .unwrap();
    let record: Value = serde_json::from_slice(&kv.get(RECORD).await.unwrap().unwrap()).unwrap();
    let fingerprint = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    let expected = json!({
        "status_code": 200, "body": "AP8=", "headers": [], "encoding": "base64",
        "fingerprint": fingerprint,
    });
    assert_eq!(record, expected);
}

#[tokio::test]
async fn only_definitive_replies_are_kept_unless_all_are() {
    for status_code in 100..1000 {
        let reply = Reply::new(status_code, "{}");
        let another_try_may_help =
            matches!(status_code, 100..=199 | 401 | 403 | 408 | 409 | 425 | 429 | 500..=999);
        for (options, is_kept) in [
            (Idempotency::default(), !another_try_may_help),
            (Idempotency::default().keep_all(), true),
        ] {
            let kv = MemoryStore::new();
            let first = answer(&kv, &options, &reply).await.unwrap();
            assert!(!first.is_replay && first.body == reply);
            assert_eq!(kv.exists(RECORD).await.unwrap(), is_kept, "{status_code}");
            assert!(!kv.exists(LOCK).await.unwrap());
            assert_eq!(answer(&kv, &options, &reply).await.unwrap().is_replay, is_kept);
        }
    }
}

#[tokio::test]
async fn a_reply_that_cannot_be_kept_is_never_worked_for_again() {
    for (reply, status_code) in
        [(Reply::omitted(201), 201), (Reply::new(99, "{}"), 99), (Reply::new(1000, "{}"), 1000)]
    {
        let (kv, runs) = (MemoryStore::new(), AtomicU32::new(0));
        for _ in 0..3 {
            let work = || async {
                runs.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Error>(reply.clone())
            };
            let options = Idempotency::default();
            let error = kv.idempotent_execute("k", &options, work).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.status_code()),
                (ErrorKind::NotKept, Some(status_code))
            );
        }
        assert_eq!(runs.into_inner(), 1);
        let small = json!({ "status_code": status_code, "body": null, "omitted": true });
        let record = kv.get(RECORD).await.unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&record).unwrap(), small);
    }
    // A status code that is not kept says that the work may be done again, whatever else it says.
    let kv = MemoryStore::new();
    let outcome = answer(&kv, &Idempotency::default(), &Reply::omitted(503)).await.unwrap();
    assert!(!outcome.is_replay && !kv.exists(RECORD).await.unwrap());
}

#[tokio::test]
async fn a_record_of_another_type_of_body_is_read_as_json() {
    let kv = MemoryStore::new();
    let body = r#"{"total": 123456789.12345679, "items": [1, 2]}"#;
    let first_edition = format!(r#"{{"status_code":201,"body":{body}}}"#);
    kv.set(RECORD, first_edition.as_bytes(), None).await.unwrap();
    let reply = replay(&kv).await.unwrap();
    let json = Bytes::from_static(b"application/json");
    assert_eq!((reply.status_code, reply.body), (201, Bytes::from(body)));
    assert_eq!(reply.headers, [("content-type".to_owned(), json)]);
    // And the other way round, where that is what it says.
    kv.delete(RECORD).await.unwrap();
    answer(&kv, &Idempotency::default(), &Reply::new(201, r#"{"a": 1}"#)).await.unwrap();
    let never = || async { Err::<Value, _>(Error::new(ErrorKind::Backend, "the work ran")) };
    let value = kv.idempotent_execute("k", &Idempotency::default(), never).await.unwrap();
    assert_eq!((value.body, value.status_code), (json!({ "a": 1 }), 201));
    // Text in base64 is no answer of a type that happens to read text.
    kv.delete(RECORD).await.unwrap();
    answer(&kv, &Idempotency::default(), &Reply::new(201, &b"\xff"[..])).await.unwrap();
    let never = || async { Err::<String, _>(Error::new(ErrorKind::Backend, "the work ran")) };
    let error = kv.idempotent_execute("k", &Idempotency::default(), never).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
