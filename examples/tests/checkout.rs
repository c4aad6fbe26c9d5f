//! The checkout program: its options, its page, and the stampede beside it.

mod common;

use std::process::{Command, Output};

use common::program::{CHECKOUT, Program, is_access};
use derp_kv_valkey::test_server::Server;

fn start() -> Program {
    Program::start(&[])
}

fn shell(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).output().expect("a shell")
}

#[test]
fn the_page_prints_what_the_service_prints() {
    assert!(shell("command -v curl").status.success(), "curl is not there: install curl");
    let service = start();
    let page = include_str!("../README.md").replace("http://localhost:8080", &service.url);
    let mut lines = 0;
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for step in block.split("$ ").filter(|step| step.starts_with("curl ")) {
            let (command, expected) = step.split_once('\n').expect("an answer");
            let output = String::from_utf8(shell(command).stdout).unwrap();
            assert_eq!(output, expected, "{command}");
            lines += 1;
        }
    }
    assert!(lines >= 8, "the page has its lines: {lines}");
}

#[test]
fn a_wrong_configuration_names_the_field_and_exits_with_2() {
    for (text, named) in [
        ("[kv]\nbackend = \"disk\"", "[kv] backend"),
        ("[kv.memory]\n[kv.valkey]", "[kv] backend"),
        ("[kv.valky]", "[kv] valky"),
        ("[service]\nname = \"checkout\"", "[kv] backend"),
        ("[kv.memory]\nmax_byte = 1", "max_byte"),
        ("[kv.memory]\nmax_bytes = 0", "max_bytes"),
        ("[kv.memory]\n[webhooks.pay]\nsecrets = []", "[webhooks.name]: needs signed_by"),
        (
            "[kv.memory]\n[webhooks.pay]\nsigned_by = \"stripe\"\nsecrets = [\"\"]",
            "[webhooks.pay]: a secret is empty",
        ),
        ("[kv.valkey]\nadresses = []", "adresses"),
        ("[kv]\nbackend = \"valkey\"\n[kv.valkey]\naddresses = [[\"h\", 0]]", "addresses"),
    ] {
        let path = common::scratch("derp.toml");
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new(CHECKOUT);
        // A configuration that is taken must end too: the test fails then, and does not wait.
        command.arg("--config").arg(&path).args(["--listen", "nowhere"]);
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}: {error}");
        assert!(error.contains(named), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let missing = &["--config", "/nowhere/derp.toml"][..];
    for (arguments, named) in [
        (missing, "/nowhere/derp.toml: No such"),
        (&["--listen"], "usage"),
        (&["--no", "x"], "usage"),
        (&["--log", "xml"], "usage"),
        (&["--trusted-proxies", "many"], "usage"),
    ] {
        let output = Command::new(CHECKOUT).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(error.matches(named).count(), 1, "{error}");
    }
    let help = Command::new(CHECKOUT).arg("--help").output().unwrap();
    assert!(help.status.success() && help.stdout.starts_with(b"usage"));
}

#[test]
fn a_signal_stops_it_after_the_requests_under_way() {
    let mut service = start();
    let url = format!("{}/products/42", service.url);
    let request = std::thread::spawn(move || {
        Command::new("curl").args(["-s", &url]).output().expect("curl is not there: install curl")
    });
    // The request is under way as soon as the database was asked.
    let stats = format!("curl -s {}/stats", service.url);
    while !String::from_utf8_lossy(&shell(&stats).stdout).contains("\"queries\":1") {
        std::thread::yield_now();
    }
    service.terminate();
    let page = String::from_utf8(request.join().unwrap().stdout).unwrap();
    assert!(page.contains("kettle"), "{page}");
    let (status, _log, rest) = service.ended();
    assert!(status.success());
    assert_eq!(rest, "stopped\n");
}

/// The operator hears what nobody else will: that everybody is trusted, and what was given up.
#[test]
fn the_log_tells_who_is_trusted_and_what_was_given_up() {
    let mut service = start();
    let poison = r#"{"id":"evt 1\n","type":"payment.succeeded"}"#;
    let deliver = format!("curl -s -o /dev/null -d '{poison}' {}/webhooks/shop", service.url);
    for _ in 0..9 {
        assert!(shell(&deliver).status.success());
    }
    let log = service.killed();
    let words: Vec<_> = log.iter().filter(|line| !is_access(line)).collect();
    let [trusted, given_up] = &words[..] else { panic!("{log:#?}") };
    assert!(trusted.contains("webhooks are not verified"), "{log:#?}");
    let id = r#"attempts=8 event="shop/payment.succeeded/evt%201%0A/""#;
    assert!(given_up.contains(id), "{log:#?}");
}

/// The client is told as little of the store's error by a layer as by a handler, and the operator all.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_why_an_order_was_refused() {
    let mut server = Server::start().await.unwrap();
    let config = common::scratch("down.toml");
    // Sooner than the patience of a duplicate ends, which would not tell the store's reason.
    let port = server.port();
    let text =
        format!("[kv.valkey]\naddresses = [[\"127.0.0.1\", {port}]]\nop_timeout_ms = 1000\n");
    std::fs::write(&config, text).unwrap();
    let service = Program::start(&["--config".as_ref(), config.as_os_str()]);
    server.kill9();
    let order = r#"{"product_id":42,"quantity":2}"#;
    let order = format!("curl -s -H 'Idempotency-Key: k' -d '{order}' {}/orders", service.url);
    let answer = String::from_utf8(shell(&order).stdout).unwrap();
    assert!(answer.contains("503"), "{answer}");
    let log = service.log_until(is_access);
    let refused = log.iter().find(|line| line.contains("the store failed a request"));
    let refused = refused.unwrap_or_else(|| panic!("{log:#?}"));
    assert!(refused.contains("ERROR request: ") && refused.contains("refused"), "{log:#?}");
    assert!(refused.contains(r#"http.route="/orders""#), "{log:#?}");
}

fn stampede(name: &str, arguments: &[&std::ffi::OsStr]) -> Vec<Vec<String>> {
    let svg = common::scratch(&format!("{name}.svg"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
    command.args(["--callers", "50", "--write"]).arg(&svg).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read_to_string(svg).unwrap().starts_with("<svg"));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().filter(|row| row.starts_with("unpro") || row.starts_with("guarded"));
    rows.map(|row| row.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn a_stampede_on_memory_computes_once() {
    let rows = stampede("memory", &[]);
    assert_eq!(rows[0][..4], ["unprotected", "50", "50", "100"]);
    assert_eq!(rows[1][..3], ["guarded_get", "50", "1"]);
    // Of the database's connections.
    assert_eq!([&rows[0][7], &rows[1][7]], ["20", "1"]);
    // Five calls for the value, and one waiter that looks every 50 ms of the 500 that it takes.
    let calls: u64 = rows[1][3].parse().unwrap();
    assert!((5..=15).contains(&calls), "{calls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stampede_of_two_processes_on_valkey_computes_once() {
    let server = Server::start().await.unwrap();
    let config = common::scratch("stampede.toml");
    let text = format!("[kv.valkey]\naddresses = [[\"127.0.0.1\", {}]]\n", server.port());
    std::fs::write(&config, text).unwrap();
    let rows = stampede("valkey", &["--config".as_ref(), config.as_os_str()]);
    assert_eq!(rows[0][..3], ["unprotected", "100", "100"]);
    assert_eq!(rows[1][..3], ["guarded_get", "100", "1"]);
}

/// A table of the outage: way, callers, answered, stale, three times, queries, connections.
fn outage(name: &str, arguments: &[&std::ffi::OsStr]) -> Vec<Vec<String>> {
    let svg = common::scratch(&format!("{name}.svg"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
    command.args(["--scenario", "outage", "--outage", "1", "--write"]).arg(&svg).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read_to_string(svg).unwrap().starts_with("<svg"));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().skip_while(|row| !row.starts_with("way ")).skip(1).take(3);
    // The names have two words, or one.
    let numbers = rows.map(|row| row[12..].split_whitespace().map(str::to_owned).collect());
    numbers.collect()
}

#[test]
fn in_an_outage_everybody_gets_stale_data_and_one_connection_is_in_use() {
    let rows = outage("outage", &[]);
    let [none, guarded, stale] = &rows[..] else { panic!("three rows: {rows:?}") };
    assert_eq!(none[7], "20", "without a cache all connections are in use: {rows:?}");
    for row in [none, guarded] {
        assert_ne!(row[0], row[1], "somebody gets no answer: {rows:?}");
        assert_eq!(row[2], "0", "{rows:?}");
    }
    // The value stays for ten times as long as all of it lasts.
    assert_eq!(stale[0], stale[1], "everybody is answered: {rows:?}");
    assert_ne!(stale[2], "0", "{rows:?}");
    // One at a time refreshes, under a lock that outlives its query.
    assert_eq!(stale[7], "1", "{rows:?}");
}
