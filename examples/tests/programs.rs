//! The small programs run to their end and print what the page says.

use std::process::Command;

fn output(program: &str) -> String {
    let output = Command::new(program).output().expect("cargo built it");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn guarded_get() {
    let expected = "100 callers, 1 computation\nafter invalidate: version 2\n";
    assert_eq!(output(env!("CARGO_BIN_EXE_guarded_get")), expected);
}

#[test]
fn idempotency() {
    let text = output(env!("CARGO_BIN_EXE_idempotency"));
    assert!(text.starts_with("5 requests: 1 charge, 4 replays\nother body: "), "{text}");
}

#[test]
fn rate_limit() {
    let expected = "fixed window: 4 and 5 of 20 pass within 0.2 s\n  the next one after 1s\n\
                    smooth: 5 and 1 of 20 pass within 0.2 s\n  the next one after 200ms\n\
                    strict: 4 and 1 of 20 pass within 0.2 s\n  the next one after 801ms\n";
    assert_eq!(output(env!("CARGO_BIN_EXE_rate_limit")), expected);
}

#[test]
fn dedup() {
    let expected = "delivery 1: the mail server is down, so it comes again\n\
                    delivery 2: handled\ndelivery 3: handled before\n";
    assert_eq!(output(env!("CARGO_BIN_EXE_dedup")), expected);
}

#[test]
fn lease() {
    let text = output(env!("CARGO_BIN_EXE_lease"));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 7, "{text}");
    for turn in lines[..6].chunks(2) {
        let name = turn[0].strip_suffix(" has it").expect("begins");
        assert_eq!(turn[1].strip_suffix(" is done"), Some(name), "nobody comes between: {text}");
    }
    assert_eq!(lines[6], "kept to the end: [true, true, true]");
}
