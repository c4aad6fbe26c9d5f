//! The project's README prints what the service prints: its transcript is the one that is tested.

#[test]
fn the_transcript_is_the_tested_one() {
    let tested = include_str!("../README.md");
    let transcript = tested.split("```console\n").nth(2).and_then(|rest| rest.split("```").next());
    let transcript = transcript.expect("the second console block of the examples' README");
    assert!(transcript.contains("/orders"));
    assert!(include_str!("../../README.md").contains(transcript));
}
