//! The project's README prints what the service prints: its transcript is the one that is tested.

#[test]
fn the_transcript_is_the_tested_one() {
    let tested = include_str!("../README.md");
    let transcript = tested.split("```console\n").nth(2).and_then(|rest| rest.split("```").next());
    let transcript = transcript.expect("the second console block of the examples' README");
    assert!(transcript.contains("/orders"));
    assert!(include_str!("../../README.md").contains(transcript));
}

/// The documentation tests compile it as it stands there; this counts what both layers need of it.
#[test]
fn both_layers_need_ten_lines() {
    let readme = include_str!("../../README.md");
    let section = readme.split("## HTTP in ten lines").nth(1).expect("the section");
    let code = section.split("```").nth(1).expect("its code");
    let (imports, function) = code.split_once("\n#[derive(Clone)]").expect("the user between them");
    let imported = imports.lines().filter(|line| line.starts_with("use derp_kv_core"));
    let (_, function) = function.split_once("\n\n").expect("the function");
    assert!(function.contains("RateLimitLayer") && function.contains("IdempotencyLayer"));
    assert!(imported.count() + function.lines().count() <= 10, "{function}");
}
