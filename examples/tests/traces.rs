//! The spans that the program sends to a collector, which the test plays.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use common::program::Program;
use common::{get, order, scratch, send, webhook};
use derp_kv_valkey::test_server::Server;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

const ORDER: &str = r#"{"product_id":42,"quantity":2}"#;

/// A collector, and what it has got.
struct Collector {
    at: SocketAddr,
    batches: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
}

impl Collector {
    async fn start() -> Self {
        let (got, batches) = mpsc::unbounded_channel();
        let take = async move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            // One that is not understood shows by its absence.
            match ExportTraceServiceRequest::decode(body) {
                Ok(batch) => {
                    got.send(batch).unwrap();
                    StatusCode::OK
                }
                Err(_) => StatusCode::BAD_REQUEST,
            }
        };
        let router = Router::new().route("/v1/traces", post(take));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { at, batches }
    }

    fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// Stops the program, which sends what is left, and returns all spans.
    async fn spans_of(mut self, mut program: Program) -> Vec<Span> {
        program.terminate();
        let (status, log, output) =
            tokio::task::spawn_blocking(move || program.ended()).await.unwrap();
        assert!(status.success() && output == "stopped\n", "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("collector")), "{log:#?}");
        let mut spans = Vec::new();
        while let Ok(batch) = self.batches.try_recv() {
            for resource in batch.resource_spans {
                let attributes = resource.resource.unwrap().attributes;
                let name = attributes.iter().find(|pair| pair.key == "service.name").unwrap();
                let name = name.value.clone().and_then(|value| value.value);
                assert_eq!(name, Some(Value::StringValue("checkout".to_owned())));
                spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        spans
    }
}

fn attribute(span: &Span, name: &str) -> Option<Value> {
    let pair = span.attributes.iter().find(|pair| pair.key == name)?;
    pair.value.clone()?.value
}

fn text(value: &str) -> Option<Value> {
    Some(Value::StringValue(value.to_owned()))
}

/// The one span of this name inside of `parent`.
#[track_caller]
fn inside<'a>(spans: &'a [Span], parent: &Span, name: &str) -> &'a Span {
    let inside = |span: &&Span| span.name == name && span.parent_span_id == parent.span_id;
    let found: Vec<_> = spans.iter().filter(inside).collect();
    let [span] = found[..] else { panic!("{name} in {}: {spans:#?}", parent.name) };
    assert_eq!(span.trace_id, parent.trace_id);
    span
}

#[track_caller]
fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert!(!found.is_empty(), "{name}: {spans:#?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helpers_span_is_inside_of_its_requests() {
    let collector = Collector::start().await;
    let program = Program::start(&["--otlp".as_ref(), collector.url().as_ref()]);
    assert_eq!(get(program.at(), "/products/42").await.status, 200);
    assert_eq!(get(program.at(), "/products/42").await.status, 200);
    let placed = order(program.at(), "k1", ORDER).await;
    assert_eq!(placed.status, 201);
    let payment = r#"{"id":"evt_1","type":"payment.succeeded","amount_cents":9900}"#;
    assert_eq!(webhook(program.at(), payment).await.status, 200);
    let spans = collector.spans_of(program).await;

    let pages = named(&spans, "GET /products/{id}");
    let mut outcomes = Vec::new();
    for page in &pages {
        assert_eq!((page.parent_span_id.len(), page.kind()), (0, SpanKind::Server), "{page:?}");
        assert_eq!(attribute(page, "http.request.method"), text("GET"));
        assert_eq!(attribute(page, "http.route"), text("/products/{id}"));
        assert_eq!(attribute(page, "http.response.status_code"), Some(Value::IntValue(200)));
        let got = inside(&spans, page, "guarded_get");
        assert!(page.start_time_unix_nano <= got.start_time_unix_nano);
        assert!(page.end_time_unix_nano >= got.end_time_unix_nano);
        outcomes.push(attribute(got, "derpkv.outcome"));
    }
    outcomes.sort_by_key(|outcome| format!("{outcome:?}"));
    assert_eq!(outcomes, [text("computed"), text("hit")]);
    assert_ne!(pages[0].trace_id, pages[1].trace_id);

    let [order] = named(&spans, "POST /orders")[..] else { panic!("one order: {spans:#?}") };
    assert_eq!(attribute(order, "request_id"), text(placed.header("x-request-id").unwrap()));
    let once = inside(&spans, order, "idempotent_execute");
    assert_eq!(attribute(once, "derpkv.outcome"), text("executed"));
    // The work of the key runs in its call, and the limit is asked there.
    let limit = named(&spans, "rate_limit")[0];
    assert_eq!(limit.trace_id, order.trace_id);
    assert_eq!(attribute(limit, "derpkv.outcome"), text("allowed"));

    // It goes on when the sender goes away, and is the request's all the same.
    let event = named(&spans, "POST /webhooks/{sender}")[0];
    let processed = inside(&spans, event, "process_once");
    assert_eq!(attribute(processed, "derpkv.outcome"), text("executed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_marked_and_shows_no_key() {
    let mut server = Server::start().await.unwrap();
    let config = scratch("traces.toml");
    let text_of = format!("[kv.valkey]\naddresses = [[\"127.0.0.1\", {}]]\n", server.port());
    std::fs::write(&config, text_of).unwrap();
    let collector = Collector::start().await;
    // The environment names the collector as well.
    let url = collector.url();
    let program = Program::start_under(
        &["--config".as_ref(), config.as_os_str()],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)],
    );
    assert_eq!(order(program.at(), "sentinel-key", ORDER).await.status, 201);
    server.kill9();
    assert_eq!(get(program.at(), "/products/77007").await.status, 503);
    let spans = collector.spans_of(program).await;
    let page = named(&spans, "GET /products/{id}")[0];
    let failed = |span: &Span| span.status.as_ref().is_some_and(|s| s.code() == SpanStatus::Error);
    assert!(failed(page), "{page:#?}");
    let got = inside(&spans, page, "guarded_get");
    assert!(failed(got) && attribute(got, "error.type").is_some(), "{got:#?}");
    let shown = format!("{spans:?}");
    for secret in ["sentinel-key", "77007", "kettle", "ada"] {
        assert!(!shown.contains(secret), "{secret}: {spans:#?}");
    }
}

/// What has no route is named by its method, and what has no known method by the protocol.
#[tokio::test(flavor = "multi_thread")]
async fn what_matches_no_route_has_none() {
    let collector = Collector::start().await;
    let program = Program::start(&["--otlp".as_ref(), collector.url().as_ref()]);
    assert_eq!(get(program.at(), "/nothing/of/this/kind").await.status, 404);
    assert_eq!(send(program.at(), "FORGED", "/stats", &[], "").await.status, 405);
    let spans = collector.spans_of(program).await;
    let nothing = named(&spans, "GET")[0];
    assert_eq!(attribute(nothing, "http.route"), None);
    assert_eq!(attribute(nothing, "http.response.status_code"), Some(Value::IntValue(404)));
    let forged = named(&spans, "HTTP /stats")[0];
    assert_eq!(attribute(forged, "http.request.method"), text("_OTHER"));
    assert_eq!(attribute(forged, "http.route"), text("/stats"));
}

/// One that takes connections and answers nothing does not keep the program from its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut program = Program::start(&["--otlp".as_ref(), url.as_ref()]);
    assert_eq!(get(program.at(), "/products/42").await.status, 200);
    let began = std::time::Instant::now();
    program.terminate();
    let ended = tokio::task::spawn_blocking(move || program.ended());
    let (status, log, output) = timeout(Duration::from_secs(60), ended).await.unwrap().unwrap();
    assert!(status.success() && output == "stopped\n", "{log:#?}");
    // A batch may take ten seconds.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(log.iter().any(|line| line.contains("the last spans were not sent")), "{log:#?}");
}

/// The variable may be there for other programs.
#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_names_no_collector_is_a_warning() {
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:s3ntinel@collector.example")];
    let program = Program::start_under(&[], &variables);
    let log = program.log_until(|line| line.contains("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let line = log.last().unwrap();
    assert!(line.contains(" WARN ") && line.contains("http://127.0.0.1:4318"), "{line}");
    assert!(!line.contains("s3ntinel"), "{line}");
    assert_eq!(get(program.at(), "/products/42").await.status, 200);
}

/// A collector that is away costs spans, and no request.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_no_fault_of_the_service() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut program = Program::start(&["--otlp".as_ref(), url.as_ref()]);
    assert_eq!(get(program.at(), "/products/42").await.status, 200);
    program.terminate();
    let ended = tokio::task::spawn_blocking(move || program.ended());
    let (status, log, output) = timeout(Duration::from_secs(60), ended).await.unwrap().unwrap();
    assert!(status.success() && output == "stopped\n", "{log:#?}");
    let told = log.iter().filter(|line| line.contains("the collector does not take spans"));
    assert_eq!(told.count(), 1, "{log:#?}");
}

#[test]
fn an_address_that_is_none_is_refused() {
    for address in
        ["", "collector", "https://127.0.0.1:4318", "http://", "grpc://a:1", "http://a b"]
    {
        let mut command = std::process::Command::new(common::program::CHECKOUT);
        let output = command.args(["--otlp", address, "--listen", "nowhere"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{address}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("--otlp") && error.contains("http://127.0.0.1:4318"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// What stands in the program's place for it without the feature, which the tests are built with.
#[path = "../src/no_otlp.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is written for the program")]
mod no_otlp;

mod log {
    pub(crate) use derp_kv_examples::log::Also;
}

#[test]
fn without_the_feature_the_refusal_says_how_to_build() {
    let refused = no_otlp::Spans::to("http://127.0.0.1:4318").unwrap_err().to_string();
    assert!(refused.contains("--features opentelemetry"), "{refused}");
}

#[test]
fn the_default_build_has_nothing_of_opentelemetry() {
    let tree = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO"));
        command.args(["tree", "--package", "derp-kv-examples", "--edges", "normal,build"]);
        command.args(["--prefix", "none", "--format", "{lib}", "--locked", "--offline"]);
        let output = command.args(more).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(tree(&["--features", "opentelemetry"]).contains("opentelemetry_sdk"));
    let default = tree(&[]);
    assert!(default.contains("tracing_subscriber") && !default.contains("opentelemetry"));
    // Spans go over HTTP, with what the service has anyway.
    let with = tree(&["--features", "opentelemetry"]);
    assert!(!with.contains("tonic") && !with.contains("reqwest"), "{with}");
}
