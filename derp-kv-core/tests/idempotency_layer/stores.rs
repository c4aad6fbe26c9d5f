//! Stores that fail before and after the work, and records that others wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use derp_kv_conformance::{Fault, FaultStore, Operation};
use derp_kv_core::bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, Idempotency, KvStore, Layer, Layered, OnAbandoned, Result};
use derp_kv_memory::MemoryStore;

use crate::common::{process, refusing};
use crate::stage::{Counter, app, call, created, id, layer, order};

fn orders<S: KvStore + Clone>(kv: S, calls: &Counter) -> Router {
    let calls = calls.clone();
    app(async move || created(calls.add())).layer(layer(kv))
}

#[tokio::test(start_paused = true)]
async fn without_its_store_nothing_is_carried_out() {
    let data = MemoryStore::new();
    let calls = Counter::default();
    for kind in [ErrorKind::Unavailable, ErrorKind::Full, ErrorKind::ReadOnly] {
        let app = orders(refusing(&data, kind), &calls);
        let refused = call(&app, order("k", "")).await;
        assert_eq!((refused.status, &*refused.title()), (503, "Service Unavailable"));
        let retry_after = refused.header("retry-after");
        assert_eq!(retry_after, (kind == ErrorKind::Unavailable).then_some("5"));
    }
    assert_eq!(calls.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn whichever_call_fails_before_the_work_it_does_not_run_unguarded() {
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Lose] {
        for nth in 0..8 {
            for attempts in [false, true] {
                let calls = Counter::default();
                let kv = FaultStore::nth(MemoryStore::new(), nth, fault);
                let handler = {
                    let calls = calls.clone();
                    async move || created(calls.add())
                };
                let app = app(handler).layer(layer(kv.clone()).attempts(attempts));
                let first = call(&app, order("k", "")).await;
                assert!(matches!(first.status, 201 | 503), "{first:?}");
                assert_eq!(calls.get(), u32::from(first.status == 201));
                // Whatever is left of a lock that nobody could free runs out.
                tokio::time::sleep(Duration::from_secs(5)).await;
                let mut again = call(&app, order("k", "")).await;
                if again.status == 503 {
                    // The first try made fewer calls than `nth`, and this one met the fault.
                    again = call(&app, order("k", "")).await;
                }
                assert_eq!((again.status, calls.get()), (201, 1), "{fault:?} {nth}");
                assert_eq!(again.is_replay(), first.status == 201, "{fault:?} {nth}");
            }
        }
    }
}

/// A store that can be cut off.
#[derive(Clone, Debug, Default)]
struct Cut(Arc<AtomicBool>);

impl Layer for Cut {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if self.0.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "cut off").with_operation(operation));
        }
        call.await
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_is_done_is_answered_though_the_store_is_gone() {
    for on_abandoned in [OnAbandoned::Rerun, OnAbandoned::Reject] {
        let (calls, cut) = (Counter::default(), Cut::default());
        let kv = Layered::new(MemoryStore::new(), cut.clone());
        let handler = {
            let (calls, cut) = (calls.clone(), cut.clone());
            async move || {
                cut.0.store(true, Ordering::SeqCst);
                created(calls.add())
            }
        };
        let options = Idempotency::default().on_abandoned(on_abandoned);
        let app = app(handler).layer(layer(kv).options(options));
        let first = call(&app, order("k", "")).await;
        assert_eq!((first.status, first.header("location")), (201, Some("/orders/1")));
        cut.0.store(false, Ordering::SeqCst);
        // The lock that nobody could free runs out.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let again = call(&app, order("k", "")).await;
        // That it was done is not written anywhere; that it was begun is, where that was asked for.
        let expected = if on_abandoned == OnAbandoned::Reject { (409, 1) } else { (201, 2) };
        assert_eq!((again.status, calls.get()), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_has_no_room_for_the_answer_keeps_that_there_was_one() {
    let calls = Counter::default();
    let kv = Layered::new(MemoryStore::new(), Small::default());
    let handler = {
        let calls = calls.clone();
        async move || {
            calls.add();
            "x".repeat(2000)
        }
    };
    let app = app(handler).layer(layer(kv));
    let first = call(&app, order("k", "")).await;
    assert_eq!((first.status, first.body.len()), (200, 2000));
    let again = call(&app, order("k", "")).await;
    assert_eq!((again.status, &again.problem()["answer-status"]), (409, &200.into()));
    assert_eq!(calls.get(), 1);
}

/// A store that refuses the one write that has the long answer: the second of those that no other may be
/// before, after that of the lock.
#[derive(Clone, Debug, Default)]
struct Small(Counter);

impl Layer for Small {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if operation == Operation::SetNx && self.0.add() == 2 {
            return Err(Error::new(ErrorKind::Full, "the value is too large"));
        }
        call.await
    }
}

#[tokio::test(start_paused = true)]
async fn processes_share_what_was_done() {
    let data = MemoryStore::new();
    let calls = Counter::default();
    let apps = [(); 4].map(|()| orders(process(&data), &calls));
    let answers = apps.iter().map(|app| call(app, order("k", "")));
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!((answer.status, answer.header("location")), (201, Some("/orders/1")));
    }
    assert_eq!(calls.get(), 1);
}

async fn answer_of(record: impl Into<Bytes>) -> crate::stage::Answer {
    let kv = MemoryStore::new();
    let key = format!("derp:idempotency:{}", id("k"));
    kv.set(key.as_bytes(), &record.into(), None).await.unwrap();
    let calls = Counter::default();
    let answer = call(&orders(kv, &calls), order("k", "")).await;
    assert_eq!(calls.get(), 0);
    answer
}

#[tokio::test]
async fn records_of_the_first_edition_and_of_derp_py_are_replayed_as_json() {
    let answer = answer_of(r#"{"status_code":201,"body":{"total": 1.10,"id":7}}"#).await;
    assert_eq!((answer.status, answer.is_replay()), (201, true));
    assert_eq!(answer.body, r#"{"total": 1.10,"id":7}"#);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn what_no_response_can_have_is_a_broken_record() {
    let with = |status: &str, headers: &str| {
        format!(r#"{{"status_code":{status},"body":"a","headers":{headers},"encoding":"json"}}"#)
    };
    let broken = [
        "".to_owned(),
        "null".to_owned(),
        "{".to_owned(),
        "\u{0}".to_owned(),
        with("99", "[]"),
        with("0", "[]"),
        with("1000", "[]"),
        with("65536", "[]"),
        with("101", "[]"),
        with("200", r#"[["a b","c"]]"#),
        with("200", r#"[["","c"]]"#),
        with("200", r#"[["link","a\r\nset-cookie: b"]]"#),
        with("200", r#"[["link","\u0000"]]"#),
        with("200", r#"[["link","€"]]"#),
        with("200", r#"[["link"]]"#),
        r#"{"status_code":200,"body":"%","headers":[],"encoding":"base64"}"#.to_owned(),
    ];
    for record in broken {
        let shown = record[..record.len().min(80)].to_owned();
        let answer = answer_of(record).await;
        assert_eq!((answer.status, &*answer.title()), (500, "Internal Server Error"), "{shown}");
    }
    assert_eq!(answer_of(b"\xff\xfe".to_vec()).await.status, 500);
    // More headers than a map of distinct names can have.
    let many = vec![("link", "<a>"); 40_000];
    assert_eq!(answer_of(with("200", &serde_json::to_string(&many).unwrap())).await.status, 200);
    // A library that has another use for the word.
    let other = answer_of(r#"{"status_code":200,"body":"a","encoding":"zip"}"#).await;
    assert_eq!((other.status, other.header("content-type")), (200, Some("application/json")));
    // Any other status code that HTTP can write is replayed as it is.
    assert_eq!(answer_of(with("700", "[]")).await.status, 700);
}

#[tokio::test]
async fn a_record_cannot_set_a_cookie_or_break_the_connection() {
    let record = r#"{"status_code":200,"body":"a","encoding":"json","headers":
        [["set-cookie","a=b"],["Content-Length","7"],["transfer-encoding","chunked"],["Link","<a>"]]}"#;
    let answer = answer_of(record).await;
    assert_eq!((answer.status, answer.header("link")), (200, Some("<a>")));
    assert_eq!(answer.header("content-length"), Some("3"));
    assert_eq!((answer.header("set-cookie"), answer.header("transfer-encoding")), (None, None));
}

#[tokio::test]
async fn a_record_without_an_answer_says_so() {
    let answer = answer_of(r#"{"status_code":204,"body":null,"omitted":true}"#).await;
    assert_eq!((answer.status, &answer.problem()["answer-status"]), (409, &204.into()));
}
