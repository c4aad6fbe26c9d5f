use derp_kv_examples::signatures::{GitHub, Refusal, SecretError};
use proptest::prelude::*;

use crate::request::{Request, every_bit_of_the_body_counts, garbage, needs_one};

// The example of GitHub's page "Validating webhook deliveries".
const SECRET: &str = "It's a Secret to Everybody";
const BODY: &str = "Hello, World!";
const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

const ID: &str = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
const NAME: &str = "x-hub-signature-256";

fn example() -> Request {
    Request::new(&[(NAME, SIGNATURE), ("x-github-delivery", ID)], BODY)
}

fn sender() -> GitHub {
    GitHub::new([SECRET]).unwrap()
}

fn verify(request: &Request) -> Result<String, Refusal> {
    sender().verify(&request.headers, &request.body)
}

#[test]
fn the_public_example_is_taken() {
    assert_eq!(verify(&example()).as_deref(), Ok(ID));
}

#[test]
fn each_header_is_needed_once() {
    for name in [NAME, "x-github-delivery"] {
        needs_one(name, &example(), verify);
    }
}

#[test]
fn all_that_is_signed_counts() {
    every_bit_of_the_body_counts(&example(), verify);
}

#[test]
fn only_the_whole_signature_of_its_kind_counts() {
    let digits = &SIGNATURE[7..];
    for (signature, refusal) in [
        (digits, Refusal::Malformed(NAME)),
        (&format!("sha1={digits}"), Refusal::Malformed(NAME)),
        ("sha256=7", Refusal::Malformed(NAME)),
        ("sha256=zz", Refusal::Malformed(NAME)),
        ("sha256=", Refusal::WrongSignature),
        (&SIGNATURE[..69], Refusal::WrongSignature),
        (&format!("{SIGNATURE}00"), Refusal::WrongSignature),
        (&format!("sha256={}", "0".repeat(64)), Refusal::WrongSignature),
    ] {
        assert_eq!(verify(&example().with(NAME, signature)), Err(refusal), "{signature}");
    }
}

#[test]
fn a_secret_can_be_changed() {
    for secrets in [[SECRET, "another"], ["another", SECRET]] {
        let sender = GitHub::new(secrets).unwrap();
        assert_eq!(sender.verify(&example().headers, BODY.as_bytes()).as_deref(), Ok(ID));
    }
    let other = GitHub::new(["another"]).unwrap();
    let refused = other.verify(&example().headers, BODY.as_bytes());
    assert_eq!(refused, Err(Refusal::WrongSignature));
}

#[test]
fn a_secret_that_protects_nothing_is_refused() {
    let refused = |secrets: &[&str]| GitHub::new(secrets).unwrap_err();
    assert_eq!(refused(&[]), SecretError::Missing);
    assert_eq!(refused(&[""]), SecretError::Empty);
    assert_eq!(refused(&[SECRET, ""]), SecretError::Empty);
    assert!(!format!("{:?}", sender()).contains("Secret to"));
}

proptest! {
    #[test]
    fn garbage_is_refused(request in garbage(
        &[NAME, "x-github-delivery"],
        &["sha256=", "sha1=", "00", "=", " ", SIGNATURE],
    )) {
        prop_assert!(verify(&request).is_err());
    }
}
