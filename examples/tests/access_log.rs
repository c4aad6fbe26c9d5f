//! The lines that a request leaves in the log of the program.

mod common;

use std::time::Duration;

use axum::Router;
use axum::routing::get as on_get;
use common::program::{Program, is_access};
use common::{get, open, order, send, webhook};
use derp_kv_examples::access;
use derp_kv_examples::stopping::Stopping;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const ORDER: &str = r#"{"product_id":42,"quantity":2}"#;
/// All lines of the log up to now.
async fn log(program: &Program) -> Vec<String> {
    // A request of the test's own.
    let answer = get(program.at(), "/stats").await;
    let id = answer.header("x-request-id").expect("an id");
    let mut lines = program.log_until(|line| line.contains(id));
    lines.pop();
    lines
}

/// The lines of requests, each from its method on.
fn requests(log: &[String]) -> Vec<&str> {
    let lines = log.iter().filter(|line| is_access(line));
    lines.map(|line| line.split_once(" access: ").unwrap().1).collect()
}

/// Without what is another one each time.
fn without_time(line: &str) -> String {
    let changes = |word: &&str| !word.starts_with("ms=") && !word.starts_with("request_id=");
    line.split(' ').filter(changes).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_a_line() {
    let program = Program::start(&[]);
    let at = program.at();
    get(at, "/products/42").await;
    get(at, "/products/42?preview=1").await;
    order(at, "k1", ORDER).await;
    order(at, "k1", ORDER).await;
    order(at, "k2", "{}").await;
    webhook(at, "{}").await;
    send(at, "DELETE", "/products/42/cached", &[], "").await;
    get(at, "/nothing/of/this/kind").await;
    send(at, "DELETE", "/orders", &[], "").await;
    get(at, "/health").await;
    get(at, "/metrics").await;
    let log = log(&program).await;
    let lines: Vec<_> = requests(&log).into_iter().map(without_time).collect();
    let expected = [
        r#"answered method="GET" route="/products/{id}" status=200 cached="computed""#,
        r#"answered method="GET" route="/products/{id}" status=200 cached="hit""#,
        r#"answered method="POST" route="/orders" status=201"#,
        r#"answered method="POST" route="/orders" status=201 replayed=true"#,
        r#"answered method="POST" route="/orders" status=400"#,
        r#"answered method="POST" route="/webhooks/{sender}" status=200"#,
        r#"answered method="DELETE" route="/products/{id}/cached" status=204"#,
        r#"answered method="GET" status=404"#,
        r#"answered method="DELETE" route="/orders" status=405"#,
    ];
    assert_eq!(lines, expected, "{log:#?}");
    // The page waits for a query of 300 ms, and the next one for none.
    let ms = |line: &str| -> f64 {
        let word = line.split(' ').find_map(|word| word.strip_prefix("ms="));
        word.expect("a time").parse().unwrap()
    };
    let times: Vec<_> = requests(&log).into_iter().map(ms).collect();
    assert!((300.0..30_000.0).contains(&times[0]) && times[1] < times[0], "{times:?}");
    for line in &log {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.len() == 27 && time.ends_with('Z') && time.contains('T'), "{line}");
        let level = rest.trim_start().split(' ').next().unwrap();
        assert!(["INFO", "WARN"].contains(&level), "{line}");
    }
}

/// What machines ask all day long is there for who wants it.
#[tokio::test(flavor = "multi_thread")]
async fn the_filter_shows_probes_or_hides_all() {
    let program = Program::start_under(&[], &[("RUST_LOG", "info,access=debug")]);
    for path in ["/health", "/health/live", "/metrics"] {
        get(program.at(), path).await;
    }
    let log = log(&program).await;
    let lines: Vec<_> = requests(&log).into_iter().map(without_time).collect();
    let expected = ["/health", "/health/live", "/metrics"]
        .map(|route| format!(r#"answered method="GET" route="{route}" status=200"#));
    assert_eq!(lines, expected);

    let mut silent = Program::start_under(&[], &[("RUST_LOG", "off")]);
    get(silent.at(), "/products/42").await;
    silent.terminate();
    assert_eq!(silent.ended().1, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_has_a_line() {
    let program = Program::start(&[]);
    let request = open(program.at(), "GET", "/products/42", &[], "").await;
    // It is under way as soon as the database was asked.
    while common::stat(program.at(), "queries").await == 0 {}
    drop(request);
    let log = program.log_until(|line| line.contains("dropped"));
    let line = without_time(requests(&log).last().unwrap());
    assert_eq!(line, r#"dropped before it was answered method="GET" route="/products/{id}""#);
}

/// Lines of a log, as they come.
struct Lines(mpsc::UnboundedSender<String>);

impl std::io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.send(String::from_utf8_lossy(line).into_owned()).expect("the test reads");
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A probe that gives up says nothing that those who read the log at INFO must know.
#[tokio::test]
async fn a_probe_that_goes_away_is_debug() {
    let (to, mut lines) = mpsc::unbounded_channel();
    let log = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG);
    let log = log.with_writer(move || Lines(to.clone())).finish();
    // All of the test runs on this thread.
    let _log = tracing::subscriber::set_default(log);
    let (begins, mut begun) = mpsc::unbounded_channel();
    let hangs = on_get(async move || -> &'static str {
        begins.send(()).unwrap();
        std::future::pending().await
    });
    let router = Router::new().route("/health", hangs.clone()).route("/stats", hangs);
    let router = access::log(router, Stopping::new(), 0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await });
    for (path, level) in [("/health", "DEBUG"), ("/stats", "INFO")] {
        let request = open(at, "GET", path, &[], "").await;
        begun.recv().await.expect("it is under way");
        drop(request);
        let line = async {
            loop {
                let line = lines.recv().await.expect("a line");
                if is_access(&line) {
                    return line;
                }
            }
        };
        let line = tokio::time::timeout(Duration::from_secs(60), line).await.expect("it is told");
        let expected =
            format!("access: dropped before it was answered method=\"GET\" route=\"{path}\"");
        assert!(line.contains(&expected) && line.contains(level), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_the_proxys_or_a_new_one() {
    let program = Program::start(&["--trusted-proxies".as_ref(), "1".as_ref()]);
    let at = program.at();
    let mut ids = Vec::new();
    for sent in ["8e03978e-40d5_7", "", "two words", "a\tb", "\"quoted\"", &"x".repeat(65)] {
        let answer = send(at, "GET", "/products/42", &[("X-Request-Id", sent)], "").await;
        ids.push(answer.header("x-request-id").unwrap().to_owned());
    }
    assert_eq!(ids[0], "8e03978e-40d5_7");
    assert!(ids[1..].iter().all(|id| id.len() == 16), "{ids:?}");
    let log = log(&program).await;
    let in_log = requests(&log).into_iter().map(|line| {
        line.split(' ').find_map(|word| word.strip_prefix("request_id=")).unwrap().trim_matches('"')
    });
    assert_eq!(in_log.collect::<Vec<_>>(), ids, "{log:#?}");
}

/// Nothing that a client sends makes a line, or is one.
#[tokio::test(flavor = "multi_thread")]
async fn no_client_writes_the_log() {
    let program = Program::start(&[]);
    let at = program.at();
    let before = log(&program).await.len();
    type Headers = &'static [(&'static str, &'static str)];
    let hostile: [(&str, &str, Headers, &str); 7] = [
        ("GET", "/products/%0a2026-01-01T00:00:00Z%20ERROR%20forged", &[], ""),
        ("GET", "/%1b[31mforged%0d%0a", &[], ""),
        (
            "GET",
            "/stats?a=%0aforged",
            &[("User-Agent", "forged"), ("X-Forwarded-For", "forged")],
            "",
        ),
        ("FORGED", "/stats", &[], ""),
        ("GET", "/stats", &[("X-Request-Id", "forged")], ""),
        ("POST", "/orders", &[("Idempotency-Key", "forged"), ("X-User", "forged")], "\"forged\n\""),
        ("POST", "/webhooks/forged%0a", &[], "{\"id\":\"forged\\n\",\"type\":\"forged\\n\"}"),
    ];
    for (method, path, headers, body) in hostile {
        let answer = send(at, method, path, headers, body).await;
        assert!(answer.status < 500, "{answer:?}");
    }
    // What no client library would send: the header of an id with bytes of no text.
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = b"GET /stats HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: \xc2\x85forged\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));

    let log = log(&program).await;
    assert_eq!(before, 1, "the warning");
    assert_eq!(log.len(), hostile.len() + 1, "{log:#?}");
    assert_eq!(requests(&log).len(), log.len(), "{log:#?}");
    for line in &log {
        assert!(!line.to_lowercase().contains("forged"), "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

/// The id of an event that was given up is the one text of a client that stands in the log.
#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_an_event_is_no_line_either() {
    for form in ["text", "json"] {
        let program = Program::start(&["--log".as_ref(), form.as_ref()]);
        let poison = r#"{"id":"a\n2026-01-01T00:00:00Z ERROR forged \u001b[31m\u2028","type":"payment.succeeded"}"#;
        for _ in 0..9 {
            webhook(program.at(), poison).await;
        }
        let log = log(&program).await;
        assert!(log.iter().any(|line| line.contains("given up")), "{log:#?}");
        assert_eq!(log.iter().filter(|line| line.contains("forged")).count(), 1, "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("Z ERROR forged")), "{log:#?}");
        let ends_a_line = |c: char| c.is_control() || c == '\u{2028}';
        assert!(!log.iter().any(|line| line.contains(ends_a_line)), "{log:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_json_each_line_is_an_object() {
    let program = Program::start(&["--log".as_ref(), "json".as_ref()]);
    order(program.at(), "k1", ORDER).await;
    order(program.at(), "k1", ORDER).await;
    let log = log(&program).await;
    let lines: Vec<Value> =
        log.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let [trusted, first, second] = &lines[..] else { panic!("{log:#?}") };
    assert_eq!(trusted["level"], "WARN");
    for line in [first, second] {
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["target"], "access");
        assert_eq!((&line["method"], &line["route"]), (&"POST".into(), &"/orders".into()));
        assert_eq!(line["status"], 201);
        assert!(line["ms"].as_f64().unwrap() > 0.0);
        assert_eq!(line["request_id"].as_str().unwrap().len(), 16);
    }
    assert_eq!((&first["replayed"], &second["replayed"]), (&Value::Null, &true.into()));
}

/// The one who asked gets an answer, and the next one too.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_is_answered() {
    async fn panics() -> &'static str {
        panic!("a handler that panics, as the test wants it")
    }
    let router = Router::new().route("/panics", on_get(panics)).route("/works", on_get("it works"));
    let router = access::log(router, Stopping::new(), 0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await });
    let stopping = Duration::from_secs(30);
    for _ in 0..2 {
        let panicked = tokio::time::timeout(stopping, get(at, "/panics")).await.unwrap();
        assert_eq!(panicked.refused(500), "the request failed");
        assert_eq!(panicked.header("x-request-id").unwrap().len(), 16);
        assert_eq!(get(at, "/works").await.body, "it works");
    }
}
