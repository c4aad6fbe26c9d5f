//! The records of `derp_py_records.txt`, each of which derp-py wrote so, byte for byte: `scripts/derp-py.sh`
//! lets it write them again.

use std::fmt::Debug;

use derp_kv_core::{
    Dedup, Error, ErrorKind, Idempotency, KvStore, KvStoreExt, Outcome, Processed, RateLimit,
    Reply, Result,
};
use derp_kv_memory::MemoryStore;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const RECORDS: &str = include_str!("derp_py_records.txt");

/// The status code and the body of a record.
fn parts(record: &str) -> (u16, &str) {
    let rest = record.strip_prefix("{\"status_code\": ").expect("how each record begins");
    let (status_code, rest) = rest.split_once(", \"body\": ").expect("what stands between");
    (status_code.parse().expect("a number"), rest.strip_suffix('}').expect("how each ends"))
}

/// Python writes numbers that are not finite, for which JSON has no word.
fn is_json(body: &str) -> bool {
    !body.contains("NaN") && !body.contains("Infinity")
}

/// A store that holds `record`.
async fn holding(record: &str) -> MemoryStore {
    let kv = MemoryStore::new();
    kv.set(b"derp:idempotency:k", record.as_bytes(), None).await.unwrap();
    kv
}

macro_rules! replay {
    ($record:expr, $type:ty) => {{
        let kv = holding($record).await;
        // What derp-py was asked is not known, so it counts as the same.
        let options = Idempotency::default().fingerprint("a request");
        let work = || async { panic!("there is a record") };
        let outcome: Result<Outcome<$type>> = kv.idempotent_execute("k", &options, work).await;
        outcome
    }};
}

#[tokio::test]
async fn each_is_replayed_as_a_response_byte_for_byte() {
    for record in RECORDS.lines() {
        let (status_code, body) = parts(record);
        let outcome = replay!(record, Reply);
        if is_json(body) {
            let expected = Reply::new(status_code, body.as_bytes().to_vec())
                .header("content-type", "application/json");
            let outcome = outcome.unwrap();
            assert_eq!((outcome.status_code, outcome.is_replay), (status_code, true), "{record}");
            assert_eq!(outcome.body, expected, "{record}");
        } else {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Corrupt, "{record}");
        }
    }
    assert_eq!(RECORDS.lines().count(), 18);
}

/// Replays the one record with this body as a `T`.
async fn typed<T: Serialize + DeserializeOwned + Send>(body: &str) -> Result<T> {
    let mut found = RECORDS.lines().filter(|record| parts(record).1 == body);
    let (record, None) = (found.next().expect("a record"), found.next()) else {
        panic!("two records have the body {body}");
    };
    let outcome = replay!(record, T)?;
    assert_eq!((outcome.status_code, outcome.is_replay), (parts(record).0, true));
    Ok(outcome.body)
}

async fn assert_is<T>(body: &str, expected: T)
where
    T: Serialize + DeserializeOwned + Debug + PartialEq + Send,
{
    assert_eq!(typed::<T>(body).await.unwrap(), expected);
}

#[tokio::test]
async fn each_is_replayed_as_what_it_was() {
    let order = RECORDS.lines().next().map(|record| parts(record).1).unwrap();
    let expected = json!({
        "order": 1,
        "total": 123_456_789.123_456_79_f64,
        "items": ["tea", null, true],
        "note": "caf\u{e9} \u{2028} \u{1f600}",
    });
    assert_is(order, expected).await;
    assert_is("null", ()).await;
    assert_is(r#""a \"word\"\\\n\u0000\u007f""#, "a \"word\"\\\n\0\u{7f}".to_owned()).await;
    assert_is("[]", Vec::<u8>::new()).await;
    assert_is("{}", json!({})).await;
    assert_is("[[[[1]]], {\"\": {\"\": 2}}]", json!([[[[1]]], {"": {"": 2}}])).await;
}

#[tokio::test]
async fn numbers_are_exact() {
    for (body, number) in [
        ("-0.0", -0.0),
        ("1e+300", 1e300),
        ("5e-324", f64::from_bits(1)),
        ("0.1", 0.1),
        ("123456789.12345679", 123_456_789.123_456_79),
    ] {
        assert_eq!(typed::<f64>(body).await.unwrap().to_bits(), number.to_bits(), "{body}");
    }
    // The first integer that no float holds.
    assert_is("9007199254740993", 9_007_199_254_740_993_u64).await;
    assert_is("9007199254740993", json!(9_007_199_254_740_993_u64)).await;
    assert_is("-9223372036854775808", i64::MIN).await;
    assert_is("18446744073709551615", u64::MAX).await;
    // Python's integers have no end; a type of Rust's that is wide enough, or a `Reply`, keeps them.
    assert_is("1180591620717411303424", 1_u128 << 70).await;
    assert_eq!(
        typed::<u64>("1180591620717411303424").await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[tokio::test]
async fn what_is_no_json_or_no_text_is_an_error_and_never_more_work() {
    for body in ["NaN", "[Infinity, -Infinity]", r#""\ud800""#] {
        let error = typed::<Value>(body).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{body}");
    }
}

/// Both mark an event with `1`, and count at the same key.
#[tokio::test]
async fn events_and_counters_are_one() {
    let kv = MemoryStore::new();
    kv.set(b"derp:webhook:evt", b"1", None).await.unwrap();
    assert!(kv.already_processed("evt", &Dedup::default()).await.unwrap());
    let handler = || async { panic!("the event was processed") };
    let again: Result<Processed<()>> = kv.process_once("evt", &Dedup::default(), handler).await;
    assert_eq!(again.unwrap(), Processed::Before);

    let handler = || async { Ok::<_, Error>(()) };
    kv.process_once("evt_2", &Dedup::default(), handler).await.unwrap();
    assert_eq!(kv.get(b"derp:webhook:evt_2").await.unwrap().unwrap(), "1");

    kv.set(b"derp:ratelimit:ada", b"2", Some(std::time::Duration::from_secs(60))).await.unwrap();
    let limit = RateLimit::new(2, std::time::Duration::from_secs(60));
    let status = kv.rate_limit("ada", &limit).await.unwrap();
    assert_eq!((status.allowed, status.count), (false, 3));
}
