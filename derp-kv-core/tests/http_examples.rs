//! The examples of the drafts and RFCs, and what is answered here: the table of `docs/http.md` is what
//! this test finds.
#![cfg(feature = "tower")]

mod common;
#[path = "http_examples/in_ten_lines.rs"]
mod in_ten_lines;
#[path = "common/structured_fields.rs"]
mod structured_fields;

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use common::refusing;
use derp_kv_core::{
    ClientId, Error, ErrorKind, KvStore, Problem, RateLimit, RateLimitLayer, WithoutStore,
};
use derp_kv_memory::MemoryStore;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use serde_json::{Value, json};
use structured_fields::list;
use tokio::time::advance;
use tower::{Layer, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const RATE_LIMITS: &str = "ratelimit-headers-10";
const IDEMPOTENCY: &str = "idempotency-key-06";

/// One response, in text.
struct Answer {
    status: StatusCode,
    headers: Vec<(String, String)>,
    json: Option<Value>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let name = name.to_lowercase();
        let mut found = self.headers.iter().filter(|(other, _)| *other == name);
        let value = found.next().map(|(_, value)| &**value);
        assert!(found.next().is_none(), "`{name}` is there twice");
        value.unwrap_or_else(|| panic!("`{name}` is missing"))
    }
}

/// What a service answers that is reached through a layer: a redirection, which is as good as any.
async fn ask<S, C>(layer: &RateLimitLayer<S, C>) -> Answer
where
    S: KvStore + Clone + 'static,
    C: ClientId,
{
    let inner = service_fn(|_: Request<()>| async {
        let response = Response::builder().status(301).header("location", "/foo/123");
        Ok::<_, Infallible>(response.body(Empty::<bytes::Bytes>::new()).unwrap())
    });
    let response = layer.layer(inner).oneshot(Request::new(())).await.unwrap();
    let (head, body) = response.into_parts();
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status,
        headers: headers.collect(),
        json: serde_json::from_slice(&body).ok(),
    }
}

fn ada(_: &Parts) -> Result<String, Problem> {
    Ok("user:ada".to_owned())
}

/// A limit on ada, of which so much is used up, so long ago.
async fn layer(
    limit: &RateLimit,
    names: &[&str],
    used: u64,
    passed: Duration,
) -> RateLimitLayer<MemoryStore, impl ClientId> {
    let layer = RateLimitLayer::new(MemoryStore::new(), names[0], limit.clone(), ada);
    let layer = layer.policy_names(names);
    if used > 0 {
        layer.limiter().check_cost(layer.id("user:ada"), used).await.unwrap();
    }
    advance(passed).await;
    layer
}

/// A row of the table.
struct Row {
    source: &'static str,
    example: String,
    here: String,
    answer: String,
    difference: &'static str,
}

/// A header of a request under a limit, beside the example of one. `without` names the parameters that
/// only one of the two has.
struct Field {
    source: &'static str,
    field: &'static str,
    example: &'static str,
    limit: RateLimit,
    code: &'static str,
    used: u64,
    passed: Duration,
    without: &'static [&'static str],
    difference: &'static str,
}

macro_rules! field {
    ($field:literal: $example:literal, $limit:expr, $used:expr, $passed:expr) => {
        field!($field: $example, $limit, $used, $passed, [], "")
    };
    (
        $field:literal: $example:literal, $limit:expr, $used:expr, $passed:expr,
        [$($without:literal),*], $difference:literal
    ) => {
        Field {
            source: RATE_LIMITS,
            field: $field,
            example: $example,
            limit: $limit,
            code: stringify!($limit),
            used: $used,
            passed: $passed,
            without: &[$($without),*],
            difference: $difference,
        }
    };
}

impl Field {
    async fn row(self) -> Row {
        let example = list(self.example).expect("the example is a good field");
        let names: Vec<_> = example.iter().map(|item| &*item.name).collect();
        let layer = layer(&self.limit, &names, self.used, self.passed).await;
        let answer = ask(&layer).await;
        let value = answer.header(self.field).to_owned();
        let without = |field: &str| -> Vec<_> {
            let items = list(field).unwrap().into_iter();
            items
                .map(|item| self.without.iter().fold(item, |item, name| item.without(name)))
                .collect()
        };
        assert_eq!(without(&value), without(self.example), "{}", self.code);
        // What the row says of the difference is so.
        assert_eq!(self.difference.is_empty(), list(&value).unwrap() == example);
        let before = match (self.used, self.passed) {
            (0, Duration::ZERO) => String::new(),
            (used, Duration::ZERO) => format!(", {used} used"),
            (used, passed) => format!(", {used} used {} s ago", passed.as_secs()),
        };
        Row {
            source: self.source,
            example: format!("{}: {}", self.field, self.example),
            here: format!("`{}`{before}", self.code),
            answer: format!("{}: {value}", self.field),
            difference: self.difference,
        }
    }
}

fn fields() -> Vec<Field> {
    vec![
        field!(
            "RateLimit-Policy": r#""burst";q=100;w=60,"daily";q=1000;w=86400"#,
            RateLimit::all([RateLimit::strict(100, MINUTE), RateLimit::strict(1000, DAY)]),
            0, Duration::ZERO
        ),
        field!(
            "RateLimit-Policy": r#""default";q=100;w=10"#,
            RateLimit::new(100, 10 * SECOND), 0, Duration::ZERO
        ),
        field!(
            "RateLimit-Policy": r#""permin";q=50;w=60,"perhr";q=1000;w=3600"#,
            RateLimit::all([RateLimit::smooth(50, MINUTE), RateLimit::smooth(1000, HOUR)]),
            0, Duration::ZERO
        ),
        field!(
            "RateLimit-Policy": r#""peruser";q=100;w=60;pk=:cHsdsRa894==:"#,
            RateLimit::strict(100, MINUTE), 0, Duration::ZERO,
            ["pk"], "no `pk`: it would tell the client's id"
        ),
        field!(
            "RateLimit-Policy": r#""peruser";q=65535;qu="content-bytes";w=10;pk=:sdfjLJUOUH==:"#,
            RateLimit::new(65535, 10 * SECOND), 0, Duration::ZERO,
            ["qu", "pk"], "no `qu`: the layer counts requests; no `pk`"
        ),
        field!(
            "RateLimit": r#""default";r=50;t=30"#,
            RateLimit::new(100, MINUTE), 49, 30 * SECOND
        ),
        field!(
            "RateLimit": r#""default";r=999;pk=:dHJpYWwxMjEzMjM=:"#,
            RateLimit::new(1000, MINUTE), 0, Duration::ZERO,
            ["t", "pk"], "`t` is always told, where something is counted; no `pk`"
        ),
        field!(
            "RateLimit": r#""default";r=300000000;t=60;pk=:QXBwLTk5OQ==:"#,
            RateLimit::new(300_000_001, MINUTE), 0, Duration::ZERO,
            ["pk"], "no `pk`"
        ),
        field!(
            "RateLimit": r#""problemPolicy";r=0;t=10"#,
            RateLimit::new(1, 10 * SECOND), 0, Duration::ZERO
        ),
        field!(
            "RateLimit": r#""default";r=1;t=7"#,
            RateLimit::new(2, 7 * SECOND), 0, Duration::ZERO
        ),
        field!(
            "RateLimit": r#""daily";r=1;t=36400"#,
            RateLimit::new(10, DAY), 8, 50_000 * SECOND
        ),
        field!(
            "RateLimit-Policy": r#""somepolicy";q=10000;w=1000"#,
            RateLimit::strict(10_000, 1000 * SECOND), 0, Duration::ZERO
        ),
        field!(
            "RateLimit": r#""somepolicy";r=10000;t=10"#,
            RateLimit::strict(10_000, 1000 * SECOND), 0, Duration::ZERO,
            ["r", "t"], "the draft warns of such an `r` and `t`: here they go together"
        ),
    ]
}

/// A problem, beside the example of one: the same but for these members.
fn problem_row(
    source: &'static str,
    (status, example): (u16, Value),
    here: &str,
    answer: &Answer,
    members: &[&str],
    difference: &'static str,
) -> Row {
    assert_eq!(answer.status, status);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let json = answer.json.clone().unwrap();
    assert_eq!(json["status"], status);
    let without = |problem: &Value| {
        let mut problem = problem.clone();
        for member in ["status"].iter().chain(members) {
            problem.as_object_mut().unwrap().remove(*member);
        }
        problem
    };
    assert_eq!(without(&json), without(&example));
    for member in members {
        assert_ne!(json.get(member), example.get(member), "`{member}` is no difference");
    }
    Row {
        source,
        example: format!("{status} {example}"),
        here: format!("`{here}`"),
        answer: format!("{} {json}", answer.status.as_u16()),
        difference,
    }
}

const NO_MEMBERS: &str = "a `Problem` has no members of its user's own; `status` is there, too";

/// What a layer answers whose `ClientId` refuses each request.
async fn refused(problem: fn() -> Problem) -> Answer {
    let refuses = move |_: &Parts| Err(problem());
    ask(&RateLimitLayer::new(MemoryStore::new(), "default", RateLimit::new(10, HOUR), refuses))
        .await
}

async fn problems() -> Vec<Row> {
    const TYPES: &str = "https://iana.org/assignments/http-problem-types";
    let all = RateLimit::all([RateLimit::strict(1, DAY), RateLimit::strict(1, HOUR)]);
    let both = layer(&all, &["daily", "bandwidth"], 1, Duration::ZERO).await;
    let quota_exceeded = problem_row(
        RATE_LIMITS,
        (
            429,
            json!({
                "type": format!("{TYPES}#quota-exceeded"),
                "title": "Request cannot be satisfied as assigned quota has been exceeded",
                "violated-policies": ["daily", "bandwidth"],
            }),
        ),
        "RateLimit::all([RateLimit::strict(1, DAY), RateLimit::strict(1, HOUR)])",
        &ask(&both).await,
        &[],
        "`status` is there, too",
    );

    let kv = refusing(&MemoryStore::new(), ErrorKind::Unavailable);
    let denies = RateLimitLayer::new(kv, "hourly", RateLimit::new(10, HOUR), ada)
        .on_store_error(WithoutStore::Deny);
    let reduced_capacity = problem_row(
        RATE_LIMITS,
        (
            503,
            json!({
                "type": format!("{TYPES}#temporary-reduced-capacity"),
                "title": "Request cannot be satisfied due to temporary server capacity constraints",
                "violated-policies": ["hourly"],
            }),
        ),
        "on_store_error(WithoutStore::Deny)",
        &ask(&denies).await,
        &["violated-policies"],
        "no `violated-policies`: nobody counted; `status` is there, too",
    );

    let poor = || {
        Problem::new(403, "You do not have enough credit.")
            .with_type_uri("https://example.com/probs/out-of-credit")
            .with_detail("Your current balance is 30, but that costs 50.")
    };
    let out_of_credit = problem_row(
        "RFC 9457, 3",
        (
            403,
            json!({
                "type": "https://example.com/probs/out-of-credit",
                "title": "You do not have enough credit.",
                "detail": "Your current balance is 30, but that costs 50.",
                "instance": "/account/12345/msgs/abc",
                "balance": 30,
                "accounts": ["/account/12345", "/account/67890"],
            }),
        ),
        "a ClientId that refuses",
        &refused(poor).await,
        &["instance", "balance", "accounts"],
        NO_MEMBERS,
    );

    let invalid = || {
        Problem::new(422, "Your request is not valid.")
            .with_type_uri("https://example.net/validation-error")
    };
    let validation_error = problem_row(
        "RFC 9457, 3",
        (
            422,
            json!({
                "type": "https://example.net/validation-error",
                "title": "Your request is not valid.",
                "errors": [
                    { "detail": "must be a positive integer", "pointer": "#/age" },
                    { "detail": "must be 'green', 'red' or 'blue'", "pointer": "#/profile/color" },
                ],
            }),
        ),
        "a ClientId that refuses",
        &refused(invalid).await,
        &["errors"],
        NO_MEMBERS,
    );
    vec![quota_exceeded, reduced_capacity, out_of_credit, validation_error]
}

/// What an error is told as, which any handler can answer with.
fn of_errors() -> Vec<Row> {
    let answer = |kind| {
        let problem = Error::new(kind, "x").problem();
        Answer {
            status: StatusCode::from_u16(problem.status_code()).unwrap(),
            headers: problem
                .headers()
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
            json: serde_json::from_slice(&problem.body()).ok(),
        }
    };
    let difference =
        "a type that tells it from the others, and other words; `status` is there, too";
    let example = |title: &str, detail: &str| json!({ "type": "https://developer.example.com/idempotency", "title": title, "detail": detail });
    vec![
        problem_row(
            IDEMPOTENCY,
            (
                422,
                example(
                    "Idempotency-Key is already used",
                    "This operation is idempotent and it requires correct usage of Idempotency Key. \
                     Idempotency Key MUST not be reused across different payloads of this operation.",
                ),
            ),
            "Error::problem of ErrorKind::KeyReused",
            &answer(ErrorKind::KeyReused),
            &["type", "detail"],
            difference,
        ),
        problem_row(
            IDEMPOTENCY,
            (
                409,
                example(
                    "A request is outstanding for this Idempotency-Key",
                    "A request with the same Idempotency-Key for the same operation is being processed \
                     or is outstanding.",
                ),
            ),
            "Error::problem of ErrorKind::InProgress",
            &answer(ErrorKind::InProgress),
            &["type", "detail"],
            difference,
        ),
    ]
}

/// `Retry-After` in seconds, beside the examples of the RFCs.
async fn retry_after() -> Vec<Row> {
    let mut rows = Vec::new();
    for (source, example, limit, code) in [
        ("RFC 6585, 4", "3600", RateLimit::new(1, HOUR), "RateLimit::new(1, HOUR)"),
        (
            "RFC 9110, 10.2.3",
            "120",
            RateLimit::smooth(1, 2 * MINUTE),
            "RateLimit::smooth(1, 2 * MINUTE)",
        ),
    ] {
        let layer = layer(&limit, &["default"], 1, Duration::ZERO).await;
        let answer = ask(&layer).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, example));
        rows.push(Row {
            source,
            example: format!("Retry-After: {example}"),
            here: format!("`{code}`, 1 used"),
            answer: format!("Retry-After: {}", answer.header("retry-after")),
            difference: "",
        });
    }
    rows
}

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/http.md");
    std::fs::read_to_string(page).unwrap()
}

#[tokio::test]
async fn the_page_shows_a_service_that_works() {
    let app = in_ten_lines::app(MemoryStore::new());
    let mut request = Request::get("/orders").body(axum::body::Body::empty()).unwrap();
    let peer = std::net::SocketAddr::from(([192, 0, 2, 7], 4711));
    request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["ratelimit-policy"], r#""orders";q=20;w=12"#);
    let code = include_str!("http_examples/in_ten_lines.rs");
    assert!(page().contains(&format!("```rust\n{code}```")), "the page must have this:\n{code}");
}

#[tokio::test(start_paused = true)]
async fn the_page_tells_what_is_answered_to_the_examples() {
    let mut rows = Vec::new();
    for field in fields() {
        rows.push(field.row().await);
    }
    rows.extend(problems().await);
    rows.extend(retry_after().await);
    rows.extend(of_errors());
    let mut table = String::from(
        "| document | its example | here | answered | difference |\n|---|---|---|---|---|\n",
    );
    for Row { source, example, here, answer, difference } in rows {
        let difference = if difference.is_empty() { "none" } else { difference };
        table += &format!("| {source} | `{example}` | {here} | `{answer}` | {difference} |\n");
    }

    let page = page();
    let (_, told) = page.split_once("<!-- examples:begin -->\n\n").unwrap();
    let (told, _) = told.split_once("\n<!-- examples:end -->").unwrap();
    assert!(told == table, "the page must have this table:\n{table}");
}
