use std::time::Duration;

use derp_kv_examples::signatures::{Refusal, SecretError, Stripe};
use proptest::prelude::*;

use crate::request::{
    FIVE_MINUTES, Request, at, every_bit_of_the_body_counts, garbage, hex, hmac, needs_one,
};

// The example that Stripe tests its library for .NET with.
const SECRET: &str = "webhook_secret";
const TIME: u64 = 1_533_204_620;
const BODY: &str = include_str!("stripe_event.json");
const SIGNATURE: &str = "f0bdba6d4eacbd8ad8a3bbadd7248e633ec1477f7899c124c51b39405fa36613";
const OTHER_SCHEME: &str = "63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef";

const NAME: &str = "stripe-signature";

fn example() -> Request {
    let header = format!("t={TIME},v1={SIGNATURE},v0={OTHER_SCHEME}");
    Request::new(&[(NAME, &header)], BODY)
}

fn sender() -> Stripe {
    Stripe::new([SECRET]).unwrap()
}

fn verify(request: &Request) -> Result<String, Refusal> {
    sender().verify(&request.headers, &request.body, at(TIME))
}

/// A body that is signed as it should be.
fn signed(body: &[u8]) -> Request {
    let signed = [format!("{TIME}.").as_bytes(), body].concat();
    let signature = hex(&hmac(SECRET.as_bytes(), &signed));
    Request::new(&[(NAME, &format!("t={TIME},v1={signature}"))], body)
}

#[test]
fn the_public_example_is_taken() {
    assert_eq!(verify(&example()).as_deref(), Ok("evt_123"));
}

#[test]
fn the_header_is_needed_once() {
    needs_one(NAME, &example(), verify);
}

#[test]
fn all_that_is_signed_counts() {
    every_bit_of_the_body_counts(&example(), verify);
    for time in [TIME - 1, TIME + 1] {
        let request = example().with(NAME, format!("t={time},v1={SIGNATURE}"));
        assert_eq!(verify(&request), Err(Refusal::WrongSignature));
    }
}

#[test]
fn a_signature_lasts_as_long_as_is_tolerated() {
    let verify = |sender: &Stripe, now| sender.verify(&example().headers, BODY.as_bytes(), at(now));
    let strict = sender().tolerance(Duration::from_secs(10));
    assert!(verify(&strict, TIME - 10).is_ok() && verify(&strict, TIME + 10).is_ok());
    assert_eq!(verify(&strict, TIME + 11), Err(Refusal::TooOld));
    assert_eq!(verify(&strict, TIME - 11), Err(Refusal::TooNew));
    assert!(verify(&sender(), TIME + FIVE_MINUTES).is_ok());
    assert_eq!(verify(&sender(), TIME + FIVE_MINUTES + 1), Err(Refusal::TooOld));
    assert_eq!(verify(&sender(), TIME - FIVE_MINUTES - 1), Err(Refusal::TooNew));
}

#[test]
fn a_header_has_one_time() {
    for header in [
        format!("v1={SIGNATURE}"),
        format!("t={TIME},t={TIME},v1={SIGNATURE}"),
        format!("t={TIME},v1={SIGNATURE},"),
        format!("t=,v1={SIGNATURE}"),
        format!("t=+{TIME},v1={SIGNATURE}"),
        format!("t={TIME}.0,v1={SIGNATURE}"),
        format!("t=99999999999999999999,v1={SIGNATURE}"),
        ",".to_owned(),
    ] {
        let request = example().with(NAME, &header);
        assert_eq!(verify(&request), Err(Refusal::Malformed(NAME)), "{header}");
    }
}

#[test]
fn only_the_whole_signature_of_its_kind_counts() {
    for signatures in [
        "",
        ",v1=",
        ",v1=é",
        ",v1=zz",
        &format!(",v0={SIGNATURE}"),
        &format!(",V1={SIGNATURE}"),
        &format!(",v1={}", &SIGNATURE[..62]),
        &format!(",v1={SIGNATURE}00"),
    ] {
        let request = example().with(NAME, format!("t={TIME}{signatures}"));
        assert!(verify(&request).is_err(), "{signatures}");
    }
    let spaced = example().with(NAME, format!("v0=x, v1={SIGNATURE}, t={TIME}"));
    assert_eq!(verify(&spaced).as_deref(), Ok("evt_123"));
}

#[test]
fn a_secret_can_be_changed() {
    for secrets in [[SECRET, "another"], ["another", SECRET]] {
        let sender = Stripe::new(secrets).unwrap();
        assert!(sender.verify(&example().headers, BODY.as_bytes(), at(TIME)).is_ok());
    }
    let old = "0".repeat(64);
    for header in
        [format!("t={TIME},v1={old},v1={SIGNATURE}"), format!("t={TIME},v1={SIGNATURE},v1={old}")]
    {
        assert_eq!(verify(&example().with(NAME, header)).as_deref(), Ok("evt_123"));
    }
    let other = Stripe::new(["another"]).unwrap();
    let refused = other.verify(&example().headers, BODY.as_bytes(), at(TIME));
    assert_eq!(refused, Err(Refusal::WrongSignature));
}

#[test]
fn a_signed_body_without_an_id_is_named() {
    assert_eq!(verify(&signed(br#"{"id":"evt_1"}"#)).as_deref(), Ok("evt_1"));
    let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(256));
    for body in ["", "{}", "[]", r#"{"id":1}"#, r#"{"id":""}"#, r#"{"id":null}"#, &long] {
        assert_eq!(verify(&signed(body.as_bytes())), Err(Refusal::NoEventId), "{body}");
    }
    assert_eq!(verify(&signed(b"\xff")), Err(Refusal::NoEventId));
}

#[test]
fn a_secret_that_protects_nothing_is_refused() {
    let refused = |secrets: &[&str]| Stripe::new(secrets).unwrap_err();
    assert_eq!(refused(&[]), SecretError::Missing);
    assert_eq!(refused(&[""]), SecretError::Empty);
    assert_eq!(refused(&[SECRET, ""]), SecretError::Empty);
    assert!(!format!("{:?}", sender()).contains(SECRET));
}

proptest! {
    #[test]
    fn garbage_is_refused(request in garbage(
        &[NAME],
        &["t=", "1533204620", ",", "v1=", "v0=", "=", " ", "00", SIGNATURE],
    )) {
        prop_assert!(verify(&request).is_err());
    }
}
