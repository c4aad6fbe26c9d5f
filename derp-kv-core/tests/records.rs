//! What `idempotent_execute` keeps of an answer: what replays exactly, and what becomes of work whose
//! answer cannot be kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::error::Error as _;
use std::fmt::Debug;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use derp_kv_core::{
    Error, ErrorKind, Flights, Idempotency, KvStore, KvStoreExt, Layer, Layered, Operation,
    Outcome, Result,
};
use derp_kv_memory::{MemoryStore, OnFull};
use futures_util::future::join_all;
use proptest::prelude::*;
use serde::de::{DeserializeOwned, Deserializer};
use serde::ser::{SerializeSeq as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const RECORD: &[u8] = b"derp:idempotency:k";
const LOCK: &[u8] = b"derp:idempotency:k:lock";
const LONG: Duration = Duration::from_secs(60);

fn options() -> Idempotency {
    Idempotency::default().status_code(201).fingerprint("a")
}

/// Runs the call and counts how often the work ran.
async fn answer<S, T>(
    kv: &S,
    options: &Idempotency,
    runs: &AtomicU32,
    body: impl FnOnce() -> T + Send,
) -> Result<Outcome<T>>
where
    S: KvStore + Clone,
    T: Serialize + DeserializeOwned + Send,
{
    let work = || async {
        runs.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(body())
    };
    kv.idempotent_execute("k", options, work).await
}

fn assert_not_kept(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::NotKept, "{error}");
    assert_eq!(error.operation(), Some(Operation::IdempotentExecute));
    assert_eq!(error.status_code(), Some(201));
    assert!(error.may_have_applied() && !error.is_transient());
}

/// A small record is there in the place of an answer, and no lock.
async fn assert_omitted(data: &MemoryStore) {
    let record = data.get(RECORD).await.unwrap().expect("a record says that the work is done");
    let record: Value = serde_json::from_slice(&record).unwrap();
    // The SHA-256 hash of `a`.
    let fingerprint = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    let small = json!({
        "status_code": 201, "body": null, "omitted": true, "fingerprint": fingerprint,
    });
    assert_eq!(record, small);
    assert!(!data.exists(LOCK).await.unwrap());
}

/// Works once on `kv`, whose data are `data`, and never again, and returns the first error.
async fn works_once_and_keeps_nothing<S, T>(
    kv: &S,
    data: &MemoryStore,
    body: impl Fn() -> T + Send + Sync,
) -> Error
where
    S: KvStore + Clone,
    T: Serialize + DeserializeOwned + Debug + Send,
{
    let runs = AtomicU32::new(0);
    let first = answer(kv, &options(), &runs, &body).await.unwrap_err();
    assert_not_kept(&first);
    assert_omitted(data).await;
    for _ in 0..3 {
        // The options of the first call count, as with an answer that was kept.
        let again = options().status_code(500);
        assert_not_kept(&answer(kv, &again, &runs, &body).await.unwrap_err());
        tokio::time::sleep(LONG).await;
    }
    let other = answer(kv, &options().fingerprint("b"), &runs, &body).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::KeyReused);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    first
}

async fn is_refused<T>(body: impl Fn() -> T + Send + Sync) -> Error
where
    T: Serialize + DeserializeOwned + Debug + Send,
{
    let data = MemoryStore::new();
    works_once_and_keeps_nothing(&data, &data, body).await
}

async fn is_kept<T>(body: T)
where
    T: Serialize + DeserializeOwned + Debug + Clone + PartialEq + Send + Sync,
{
    let (kv, runs) = (MemoryStore::new(), AtomicU32::new(0));
    let first = answer(&kv, &options(), &runs, || body.clone()).await.unwrap();
    let again = answer(&kv, &options(), &runs, || body.clone()).await.unwrap();
    assert_eq!((first.status_code, first.is_replay), (201, false));
    assert_eq!((again.status_code, again.is_replay), (201, true));
    assert!(first.body == body && again.body == body, "{again:?} is not {body:?}");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    big: u128,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flattened {
    #[serde(flatten)]
    inner: Inner,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Stock { by_id: BTreeMap<u64, u32> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Skipped {
    #[serde(skip_serializing)]
    secret: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OtherDefault {
    #[serde(default = "one", skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
}

fn one() -> Option<u32> {
    Some(1)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Word(String),
    Letter(char),
}

fn nested(levels: u32) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[tokio::test(start_paused = true)]
async fn numbers_that_are_not_finite_are_refused() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        is_refused(|| value).await;
        is_refused(|| value as f32).await;
        is_refused(|| vec![1.0, value]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wide_integer_in_a_flattened_field_is_refused() {
    is_refused(|| Flattened { inner: Inner { big: u128::MAX } }).await;
    is_refused(|| Flattened { inner: Inner { big: 7 } }).await;
    is_kept(Inner { big: u128::MAX }).await;
}

#[tokio::test(start_paused = true)]
async fn number_keys_in_a_tagged_enum_are_refused() {
    is_refused(|| Tagged::Stock { by_id: BTreeMap::from([(1, 2)]) }).await;
    is_kept(BTreeMap::from([(1_u64, 2)])).await;
}

#[tokio::test(start_paused = true)]
async fn a_field_that_is_not_serialized_is_refused() {
    is_refused(|| Skipped { secret: "s".into() }).await;
}

#[tokio::test(start_paused = true)]
async fn deep_nesting_is_refused() {
    is_refused(|| nested(130)).await;
    is_refused(|| nested(128)).await;
    is_kept(nested(127)).await;
}

#[tokio::test(start_paused = true)]
async fn tuple_keys_are_refused() {
    is_refused(|| BTreeMap::from([((1, 2), 3)])).await;
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_no_text_is_refused() {
    is_refused(|| PathBuf::from(std::ffi::OsString::from_vec(vec![b'/', 0xff]))).await;
    is_kept(PathBuf::from("/\u{fc}")).await;
}

#[tokio::test(start_paused = true)]
async fn what_json_calls_null_is_refused_where_it_is_something() {
    is_refused(|| Some(())).await;
    is_refused(|| Some(None::<u32>)).await;
    is_refused(|| Some(f64::NAN)).await;
    is_refused(|| Some(f32::INFINITY)).await;
    is_refused(|| vec![Some(Some(1)), Some(None)]).await;
    is_refused(|| BTreeMap::from([("a".to_owned(), Some(()))])).await;
    is_kept(()).await;
    is_kept(None::<()>).await;
    is_kept(vec![Some(Some(1)), None]).await;
}

#[tokio::test(start_paused = true)]
async fn a_default_that_replaces_what_was_skipped_is_refused() {
    is_refused(|| OtherDefault { count: None }).await;
    is_kept(OtherDefault { count: Some(7) }).await;
}

#[tokio::test(start_paused = true)]
async fn another_variant_of_an_untagged_enum_is_refused() {
    is_refused(|| Untagged::Letter('a')).await;
    is_kept(Untagged::Word("a".into())).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_its_cause_and_no_value() {
    let no_text = is_refused(|| BTreeMap::from([((1_234_567, 0), 3)])).await;
    let no_way_back = is_refused(|| (f64::NAN, "7654321".to_owned())).await;
    for error in [&no_text, &no_way_back] {
        let source = error.source().expect("what JSON said").to_string();
        let all = format!("{error} {error:?} {source}");
        assert!(!all.contains("1234567") && !all.contains("7654321"), "{all}");
    }
    assert!(no_text.to_string().contains("cannot be written as JSON"));
    assert!(no_way_back.to_string().contains("cannot be read back"));
    assert!(is_refused(|| Some(())).await.to_string().contains("is another one"));
}

#[tokio::test(start_paused = true)]
async fn duplicates_that_wait_are_told_too() {
    let data = MemoryStore::new();
    let runs = AtomicU32::new(0);
    let other = Layered::new(data.clone(), Process::default());
    let here = join_all((0..10).map(|_| async {
        tokio::task::yield_now().await;
        answer(&data, &options(), &runs, || f64::NAN).await.unwrap_err()
    }));
    let there = join_all(
        (0..10)
            .map(|_| async { answer(&other, &options(), &runs, || f64::NAN).await.unwrap_err() }),
    );
    let (here, there) = tokio::join!(here, there);
    here.iter().chain(&there).for_each(assert_not_kept);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_omitted(&data).await;
}

#[tokio::test(start_paused = true)]
async fn duplicates_in_one_process_hear_it_without_asking_the_store() {
    let refuses = |data: &MemoryStore| Limit {
        data: data.clone(),
        longest: 1_000,
        kind: ErrorKind::InvalidArgument,
    };
    for body in [Some(None), Some(Some("x".repeat(1_000)))] {
        let (data, process, runs) = (MemoryStore::new(), Process::default(), AtomicU32::new(0));
        let kv = Layered::new(Layered::new(data.clone(), refuses(&data)), process.clone());
        let options = options();
        let callers = (0..50).map(|_| answer(&kv, &options, &runs, || body.clone()));
        for outcome in join_all(callers).await {
            assert_not_kept(&outcome.unwrap_err());
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        // The first caller reads before it takes the lock, and once more under it.
        assert_eq!(process.reads.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn hashed_bodies_are_kept_whatever_their_order() {
    is_kept((0..1_000).map(|n| (n.to_string(), n)).collect::<HashMap<String, u32>>()).await;
    is_kept((0..1_000).map(|n| (n, -n)).collect::<HashMap<i32, i32>>()).await;
    is_kept((0..1_000).collect::<HashSet<u32>>()).await;
    is_kept(vec![(0..1_000).map(|n| vec![n]).collect::<HashSet<Vec<u32>>>(); 2]).await;
}

#[tokio::test(start_paused = true)]
async fn ordinary_bodies_are_kept() {
    is_kept(vec![Some("a".to_owned()), None]).await;
    is_kept((1_u8, 'x', String::from("\u{0}\"\\\u{1f600}"), -0.0_f64, true)).await;
    is_kept(BTreeSet::from([Ok::<u8, i8>(1), Err(-1)])).await;
    is_kept(Duration::new(1, 999_999_999)).await;
    is_kept(std::net::IpAddr::from([127, 0, 0, 1])).await;
    is_kept(json!({ "a": [1, -1, 1.5, 1e300, null, {}], "b": { "": "" } })).await;
    // What makes a NaN of `null` cannot know which one it was.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Measured(#[serde(deserialize_with = "null_is_nan")] f64);
    impl PartialEq for Measured {
        fn eq(&self, other: &Self) -> bool {
            self.0.is_nan() && other.0.is_nan()
        }
    }
    fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
    is_kept(Measured(-f64::NAN)).await;
}

/// Serialized as a number that is higher each time.
#[derive(Debug, Deserialize)]
#[serde(from = "u32")]
struct Counting(AtomicU32);

impl From<u32> for Counting {
    fn from(count: u32) -> Self {
        Self(count.into())
    }
}

impl Serialize for Counting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// Serialized as a sequence that is drained the first time.
#[derive(Debug, Deserialize)]
#[serde(from = "Vec<u32>")]
struct Drained(std::sync::Mutex<Vec<u32>>);

impl From<Vec<u32>> for Drained {
    fn from(items: Vec<u32>) -> Self {
        Self(items.into())
    }
}

impl Serialize for Drained {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let items = std::mem::take(&mut *self.0.lock().unwrap());
        let mut seq = serializer.serialize_seq(Some(items.len()))?;
        items.iter().try_for_each(|item| seq.serialize_element(item))?;
        seq.end()
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_serialized_otherwise_each_time_is_kept() {
    let (kv, runs) = (MemoryStore::new(), AtomicU32::new(0));
    for is_replay in [false, true] {
        let outcome = answer(&kv, &options(), &runs, || Counting::from(1)).await.unwrap();
        assert_eq!(outcome.is_replay, is_replay);
    }
    let kv = MemoryStore::new();
    answer(&kv, &options(), &runs, || Drained::from(vec![1, 2])).await.unwrap();
    let again = answer(&kv, &options(), &runs, || Drained::from(vec![])).await.unwrap();
    assert_eq!(*again.body.0.lock().unwrap(), [1, 2]);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

/// Panics when it is serialized, or only when it is deserialized.
#[derive(Debug)]
struct Panicking {
    late: bool,
}

impl Serialize for Panicking {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.late, "on purpose");
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Panicking {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("on purpose")
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_does_not_let_its_work_run_again() {
    for late in [false, true] {
        let error = is_refused(move || Panicking { late }).await;
        assert!(error.to_string().contains("panics"), "{error}");
    }
}

/// Another process: the same data, and flights of its own. It counts its reads.
#[derive(Clone, Debug, Default)]
struct Process {
    flights: Arc<Flights>,
    reads: Arc<AtomicU32>,
}

impl Layer for Process {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.reads.fetch_add(u32::from(operation == Operation::Get), Ordering::SeqCst);
        call.await
    }

    fn flights<'a>(&'a self, _: Option<&'a Flights>) -> Option<&'a Flights> {
        Some(&self.flights)
    }
}

/// A store that does not take long records.
#[derive(Clone, Debug)]
struct Limit {
    data: MemoryStore,
    longest: usize,
    kind: ErrorKind,
}

impl Layer for Limit {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let result = call.await;
        if operation == Operation::SetNx && key == Some(RECORD) {
            let record = self.data.get(RECORD).await?;
            if record.is_some_and(|record| record.len() > self.longest) {
                // A layer does not see the value before it is written.
                self.data.delete(RECORD).await?;
                return Err(Error::new(self.kind, "a long value"));
            }
        }
        result
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_above_the_limit_of_the_store_is_refused() {
    // A store may also say nothing for a long value, and be out of time on each try.
    for kind in [ErrorKind::InvalidArgument, ErrorKind::Full, ErrorKind::Timeout] {
        let data = MemoryStore::new();
        let limit = Limit { data: data.clone(), longest: 1_000, kind };
        let kv = Layered::new(data.clone(), limit);
        let began = tokio::time::Instant::now();
        let runs = AtomicU32::new(0);
        let small = answer(&kv, &options(), &runs, || "x".repeat(800)).await.unwrap();
        assert!(!small.is_replay);
        data.delete(RECORD).await.unwrap();
        let error = works_once_and_keeps_nothing(&kv, &data, || "x".repeat(1_000)).await;
        let source = error.source().unwrap().downcast_ref::<Error>().expect("the store's error");
        assert_eq!(source.kind(), kind);
        assert!(began.elapsed() < 4 * LONG, "each of the three repetitions waits that long");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_store_never_lets_the_work_run_again() {
    let data = MemoryStore::builder().max_bytes(16 * 1024).on_full(OnFull::Reject).build().unwrap();
    let error = works_once_and_keeps_nothing(&data, &data, || "x".repeat(20_000)).await;
    let source = error.source().unwrap().downcast_ref::<Error>().expect("the store's error");
    assert_eq!(source.kind(), ErrorKind::Full);
}

/// The first so many writes of the record are applied, and their answers are lost.
#[derive(Clone, Debug)]
struct LostAnswers {
    left: Arc<AtomicU32>,
    /// What is said to those after them.
    then: Option<ErrorKind>,
}

impl Layer for LostAnswers {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let result = call.await;
        if operation != Operation::SetNx || key != Some(RECORD) {
            return result;
        }
        let lost = |left: u32| left.checked_sub(1);
        match (self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lost), self.then) {
            (Ok(1), Some(kind)) => Err(Error::new(kind, "refused")),
            (Ok(_), _) => Err(Error::new(ErrorKind::Timeout, "lost").with_may_have_applied(true)),
            (Err(_), _) => result,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_answer_was_lost_is_ours() {
    for then in [None, Some(ErrorKind::Full)] {
        let data = MemoryStore::new();
        let layer = LostAnswers { left: Arc::new(AtomicU32::new(2)), then };
        let kv = Layered::new(data.clone(), layer);
        let runs = AtomicU32::new(0);
        // It is kept, although it was given up by the time that this was known.
        let first = answer(&kv, &options(), &runs, || 7).await.unwrap();
        let again = answer(&kv, &options(), &runs, || 7).await.unwrap();
        assert_eq!((first.body, first.is_replay), (7, false));
        assert_eq!((again.body, again.is_replay), (7, true));
    }
    let data = MemoryStore::new();
    let layer = LostAnswers { left: Arc::new(AtomicU32::new(2)), then: None };
    let kv = Layered::new(data.clone(), layer);
    let error = works_once_and_keeps_nothing(&kv, &data, || f64::NAN).await;
    assert!(error.to_string().contains("cannot be read back"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_small_record_that_another_holder_left_is_what_counts() {
    let (kv, runs) = (MemoryStore::new(), AtomicU32::new(0));
    let work = || async {
        runs.fetch_add(1, Ordering::SeqCst);
        // Somebody who took over has finished meanwhile.
        let small = br#"{"status_code":201,"body":null,"omitted":true}"#;
        kv.set(RECORD, small, Some(LONG)).await?;
        Ok::<_, Error>(7)
    };
    assert_not_kept(&kv.idempotent_execute("k", &options(), work).await.unwrap_err());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

/// Replays a record that something else wrote.
async fn replay<T: Serialize + DeserializeOwned + Send>(record: &str) -> Result<Outcome<T>> {
    let kv = MemoryStore::new();
    kv.set(RECORD, record.as_bytes(), Some(LONG)).await?;
    let work = || async { panic!("there is a record") };
    kv.idempotent_execute::<_, T, _, _, Error>("k", &options(), work).await
}

#[tokio::test]
async fn records_of_other_versions_are_replayed() {
    for record in [
        r#"{"status_code": 201, "body": 7}"#,
        r#"{"body": 7, "status_code": 201, "created_at": 1.5, "headers": {"a": []}}"#,
        r#"{"status_code":201,"body":7,"fingerprint":null}"#,
        r#"{"status_code":201,"body":7,"omitted":false}"#,
        r#"{"status_code":201,"body":7,"omitted":null}"#,
        "{\"status_code\":201,\"body\":7,\"fingerprint\":\
         \"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb\"}",
    ] {
        let outcome = replay::<u32>(record).await.unwrap();
        assert_eq!((outcome.body, outcome.status_code, outcome.is_replay), (7, 201, true));
    }
    for omitted in [
        r#"{"status_code":201,"body":null,"omitted":true}"#,
        r#"{"status_code":201,"body":7,"omitted":true,"since":1}"#,
    ] {
        assert_not_kept(&replay::<Option<u32>>(omitted).await.unwrap_err());
    }
    let other = r#"{"status_code":201,"body":null,"omitted":true,"fingerprint":"b"}"#;
    assert_eq!(replay::<()>(other).await.unwrap_err().kind(), ErrorKind::KeyReused);
}

#[tokio::test]
async fn a_number_of_another_language_is_the_same_number() {
    let record = r#"{"status_code": 201, "body": 123456789.12345679}"#;
    let number = replay::<f64>(record).await.unwrap().body;
    assert_eq!(number.to_bits(), 123_456_789.123_456_79_f64.to_bits());
    // So it is written again as it was read.
    let value = replay::<Value>(record).await.unwrap().body;
    assert_eq!(value.to_string(), "123456789.12345679");
}

/// In virtual time.
fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
}

fn finite64() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |value| value.is_finite())
}

fn finite32() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |value| value.is_finite())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        finite64().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Numbers {
    f64: f64,
    f32: f32,
    i64: i64,
    u64: u64,
    i128: i128,
    u128: u128,
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let all = (finite64(), finite32(), any::<i64>(), any::<u64>(), any::<i128>(), any::<u128>());
    all.prop_map(|(f64, f32, i64, u64, i128, u128)| Numbers { f64, f32, i64, u64, i128, u128 })
}

proptest! {
    #[test]
    fn numbers_replay_to_the_last_bit(numbers in prop::collection::vec(numbers(), 64)) {
        run(async {
            let (kv, runs) = (MemoryStore::new(), AtomicU32::new(0));
            answer(&kv, &options(), &runs, || numbers.clone()).await.unwrap();
            let again = answer(&kv, &options(), &runs, Vec::<Numbers>::new).await.unwrap();
            assert_eq!(&again.body, &numbers);
            for (again, first) in again.body.iter().zip(&numbers) {
                assert_eq!(again.f64.to_bits(), first.f64.to_bits());
                assert_eq!(again.f32.to_bits(), first.f32.to_bits());
            }
        });
    }

    #[test]
    fn numbers_of_another_language_are_the_same_numbers(number in finite64()) {
        let record = format!(r#"{{"status_code": 201, "body": {number:?}}}"#);
        let replayed = run(replay::<f64>(&record)).unwrap().body;
        assert_eq!(replayed.to_bits(), number.to_bits());
    }

    #[test]
    fn every_json_value_is_kept(body in any_json()) {
        run(is_kept(body));
    }
}
