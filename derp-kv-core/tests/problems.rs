//! What clients are told of errors: the right status code, in the JSON of RFC 9457, and nothing that is
//! not theirs to know.

use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, Operation, Problem};
use proptest::prelude::*;
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

const KINDS: [ErrorKind; 16] = [
    ErrorKind::InvalidArgument,
    ErrorKind::NotAnInteger,
    ErrorKind::Unavailable,
    ErrorKind::Timeout,
    ErrorKind::AccessDenied,
    ErrorKind::ReadOnly,
    ErrorKind::Full,
    ErrorKind::InProgress,
    ErrorKind::Held,
    ErrorKind::Failing,
    ErrorKind::KeyReused,
    ErrorKind::NotKept,
    ErrorKind::Abandoned,
    ErrorKind::Corrupt,
    ErrorKind::Unsupported,
    ErrorKind::Backend,
];

fn body(problem: &Problem) -> Value {
    serde_json::from_slice(&problem.body()).unwrap()
}

#[test]
fn each_kind_of_error_has_its_status_code() {
    for kind in KINDS {
        let problem = Error::new(kind, "x").problem();
        let (status_code, retry_after) = match kind {
            ErrorKind::InvalidArgument => (400, None),
            ErrorKind::InProgress | ErrorKind::Abandoned => (409, Some(5)),
            ErrorKind::NotKept => (409, None),
            ErrorKind::KeyReused => (422, None),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Held | ErrorKind::Failing => {
                (503, Some(5))
            }
            ErrorKind::ReadOnly
            | ErrorKind::Full
            | ErrorKind::AccessDenied
            | ErrorKind::Backend => (503, None),
            _ => (500, None),
        };
        assert_eq!(problem.status_code(), status_code, "{kind}");
        assert_eq!(problem.retry_after(), retry_after.map(Duration::from_secs), "{kind}");
    }
}

#[test]
fn an_event_has_no_idempotency_key() {
    let error = Error::new(ErrorKind::InProgress, "x").with_operation(Operation::ProcessOnce);
    assert_eq!(error.problem().status_code(), 409);
    assert!(!body(&error.problem()).to_string().contains("Idempotency-Key"));
}

#[test]
fn nobody_is_told_to_come_back_at_once() {
    for left in [Duration::ZERO, Duration::from_millis(1)] {
        let problem = Error::new(ErrorKind::Failing, "x").with_retry_after(left).problem();
        assert_eq!(problem.headers()[1], ("retry-after", "1".to_owned()));
    }
}

#[test]
fn an_attempt_that_is_rejected_is_not_to_be_tried_again() {
    // It answers the same until somebody forgets the key.
    let error = Error::new(ErrorKind::Abandoned, "x").with_transient(false);
    assert_eq!(error.problem().headers().len(), 1);
}

#[test]
fn the_error_says_when_to_come_back() {
    for kind in KINDS {
        let error = Error::new(kind, "x").with_retry_after(1500 * Duration::from_millis(1));
        let headers = error.problem().headers();
        let expected = ("retry-after", "2".to_owned());
        assert_eq!(headers[1..], [expected], "{kind}");
        assert_eq!(headers[0], ("content-type", "application/problem+json".to_owned()));
    }
    let never = Error::new(ErrorKind::Unavailable, "x").with_transient(false);
    assert_eq!(never.problem().retry_after(), None);
}

#[test]
fn types_tell_problems_apart_that_are_more_than_a_status_code() {
    let mut types = std::collections::BTreeSet::new();
    for kind in KINDS {
        let problem = Error::new(kind, "x").problem();
        let json = body(&problem);
        let own =
            [ErrorKind::InProgress, ErrorKind::KeyReused, ErrorKind::NotKept, ErrorKind::Abandoned];
        if own.contains(&kind) {
            assert!(types.insert(problem.type_uri().to_owned()), "{kind}");
            assert!(problem.type_uri().ends_with(&format!("ErrorKind.html#variant.{kind:?}")));
            assert!(problem.detail().is_some());
        } else {
            // RFC 9457, section 4.2.1: the title is the phrase of the status code.
            let phrase = match problem.status_code() {
                400 => "Bad Request",
                500 => "Internal Server Error",
                503 => "Service Unavailable",
                other => panic!("{other}"),
            };
            assert_eq!((problem.type_uri(), problem.title()), ("about:blank", phrase));
        }
        assert_eq!(json["type"], problem.type_uri());
        assert_eq!(json["status"], problem.status_code());
    }
}

#[test]
fn a_client_is_told_that_its_request_may_have_been_carried_out() {
    let lost = Error::new(ErrorKind::Timeout, "x").with_may_have_applied(true).problem();
    assert_eq!(lost.detail(), Some("It is not known whether the request was carried out."));
    let done =
        Error::new(ErrorKind::NotKept, "x").with_may_have_applied(true).with_status_code(201);
    assert!(done.problem().detail().unwrap().contains("was carried out with status 201"));
}

#[test]
fn nothing_of_the_error_itself_is_told() {
    for kind in KINDS {
        let error = Error::new(kind, "node 10.0.0.7 says SECRET")
            .with_context("key SECRET")
            .with_operation(Operation::CompareAndSet)
            .with_source(std::io::Error::other("SECRET"));
        let problem = error.problem();
        for told in [
            String::from_utf8(problem.body().to_vec()).unwrap(),
            format!("{problem} {problem:?} {:?}", problem.headers()),
        ] {
            assert!(!told.contains("SECRET") && !told.contains("10.0.0.7"), "{told}");
            assert!(!told.contains("compare_and_set"), "{told}");
        }
    }
}

#[test]
fn a_problem_is_what_it_was_made_of() {
    let problem = Problem::new(403, "You do not have enough credit.")
        .with_type_uri("https://example.com/probs/out-of-credit")
        .with_detail("Your current balance is 30, but that costs 50.")
        .with_violated_policies(["daily", "bandwidth"]);
    assert_eq!(
        body(&problem),
        json!({
            "type": "https://example.com/probs/out-of-credit",
            "title": "You do not have enough credit.",
            "status": 403,
            "detail": "Your current balance is 30, but that costs 50.",
            "violated-policies": ["daily", "bandwidth"],
        })
    );
    let shown =
        "403 You do not have enough credit.: Your current balance is 30, but that costs 50.";
    assert_eq!(problem.to_string(), shown);
}

proptest! {
    #[test]
    fn any_text_is_json(status_code: u16, title: String, detail: String, names: Vec<String>) {
        let problem = Problem::new(status_code, title.clone())
            .with_detail(detail.clone())
            .with_violated_policies(names.clone());
        let json = body(&problem);
        prop_assert_eq!(&json["title"], &title);
        prop_assert_eq!(&json["detail"], &detail);
        prop_assert_eq!(&json["status"], status_code);
        let told = json.get("violated-policies").cloned().unwrap_or(json!([]));
        prop_assert_eq!(told, json!(names));
    }

    #[test]
    fn whoever_comes_back_when_told_is_not_early(seconds: u64, nanos in 0..1_000_000_000_u32) {
        let retry_after = Duration::new(seconds, nanos);
        let problem = Problem::new(503, "x").with_retry_after(retry_after);
        let told: u64 = problem.headers()[1].1.parse().unwrap();
        prop_assert!(Duration::from_secs(told) >= retry_after || told == u64::MAX);
        prop_assert!(Duration::from_secs(told) < retry_after.saturating_add(SECOND));
    }
}
