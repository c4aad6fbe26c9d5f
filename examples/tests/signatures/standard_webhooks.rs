use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use derp_kv_examples::signatures::{Refusal, SecretError, StandardWebhooks};
use proptest::prelude::*;

use crate::request::{
    FIVE_MINUTES, Request, at, every_bit_of_the_body_counts, garbage, hmac, needs_one,
};

// The example that all libraries of Standard Webhooks are tested with.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIME: u64 = 1_614_265_330;
const BODY: &str = r#"{"test": 2432232314}"#;
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn example() -> Request {
    let headers =
        [("webhook-id", ID), ("webhook-timestamp", "1614265330"), ("webhook-signature", SIGNATURE)];
    Request::new(&headers, BODY)
}

fn sender() -> StandardWebhooks {
    StandardWebhooks::new([SECRET]).unwrap()
}

fn verify_by(sender: &StandardWebhooks, request: &Request) -> Result<String, Refusal> {
    sender.verify(&request.headers, &request.body, at(TIME))
}

fn verify(request: &Request) -> Result<String, Refusal> {
    verify_by(&sender(), request)
}

fn signature(key: &[u8], signed: &[u8]) -> String {
    format!("v1,{}", STANDARD.encode(hmac(key, signed)))
}

#[test]
fn the_public_example_is_taken() {
    assert_eq!(verify(&example()).as_deref(), Ok(ID));
    let bare = StandardWebhooks::new([SECRET.trim_start_matches("whsec_")]).unwrap();
    assert_eq!(verify_by(&bare, &example()).as_deref(), Ok(ID));
}

#[test]
fn svix_sends_the_same_under_its_own_names() {
    let headers =
        [("svix-id", ID), ("svix-timestamp", "1614265330"), ("svix-signature", SIGNATURE)];
    assert_eq!(verify(&Request::new(&headers, BODY)).as_deref(), Ok(ID));
    // One of the other set does not stand in.
    let mixed = example().without("webhook-id").with("svix-id", ID);
    assert_eq!(verify(&mixed), Err(Refusal::Missing("svix-timestamp")));
}

#[test]
fn a_body_may_be_any_bytes() {
    let body = b"\xff\x00\xfe";
    let signed = [b"a.1614265330.".as_slice(), body].concat();
    let signature = signature(&STANDARD.decode(&SECRET[6..]).unwrap(), &signed);
    let request = Request { body: body.to_vec(), ..example() };
    let request = request.with("webhook-id", "a").with("webhook-signature", signature);
    assert_eq!(verify(&request).as_deref(), Ok("a"));
}

#[test]
fn each_header_is_needed_once() {
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        needs_one(name, &example(), verify);
    }
}

#[test]
fn all_that_is_signed_counts() {
    every_bit_of_the_body_counts(&example(), verify);
    for (name, value) in [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJeK"),
        ("webhook-timestamp", "1614265331"),
        ("webhook-timestamp", "01614265330"),
    ] {
        assert_eq!(verify(&example().with(name, value)), Err(Refusal::WrongSignature), "{value}");
    }
}

/// An id with a full stop would let somebody move the end of the id, or of the body, elsewhere.
#[test]
fn what_was_signed_cannot_be_split_in_another_way() {
    let key = STANDARD.decode(&SECRET[6..]).unwrap();
    let signature = signature(&key, format!("a.{TIME}.{TIME}.{BODY}").as_bytes());
    let request = example().with("webhook-signature", signature);
    let first = Request { body: format!("{TIME}.{BODY}").into_bytes(), ..request.clone() };
    assert_eq!(verify(&first.with("webhook-id", "a")).as_deref(), Ok("a"));
    let other = request.with("webhook-id", format!("a.{TIME}"));
    assert_eq!(verify(&other), Err(Refusal::Malformed("webhook-id")));
}

#[test]
fn a_signature_lasts_as_long_as_is_tolerated() {
    let sender = sender().tolerance(Duration::from_secs(10));
    let verify = |now| sender.verify(&example().headers, BODY.as_bytes(), at(now));
    for now in [TIME - 10, TIME, TIME + 10] {
        assert_eq!(verify(now).as_deref(), Ok(ID));
    }
    assert_eq!(verify(TIME + 11), Err(Refusal::TooOld));
    assert_eq!(verify(TIME - 11), Err(Refusal::TooNew));
    let usual = |now| self::sender().verify(&example().headers, BODY.as_bytes(), at(now));
    assert_eq!(usual(TIME + FIVE_MINUTES).as_deref(), Ok(ID));
    assert_eq!(usual(TIME + FIVE_MINUTES + 1), Err(Refusal::TooOld));
    assert_eq!(usual(TIME - FIVE_MINUTES - 1), Err(Refusal::TooNew));
}

#[test]
fn a_time_is_a_number_of_seconds() {
    let malformed = Err(Refusal::Malformed("webhook-timestamp"));
    for time in ["", "+1614265330", "-1", "1614265330.0", " ", "now", "9".repeat(19).as_str()] {
        assert_eq!(verify(&example().with("webhook-timestamp", time)), malformed, "{time}");
    }
    let past = example().with("webhook-timestamp", "0");
    assert_eq!(verify(&past), Err(Refusal::TooOld));
}

#[test]
fn a_secret_can_be_changed() {
    let other = format!("whsec_{}", STANDARD.encode(b"another secret of 24 byte"));
    // By the receiver, who knows both for a while, in any order.
    for secrets in [[SECRET, &other], [&other, SECRET]] {
        let sender = StandardWebhooks::new(secrets).unwrap();
        assert_eq!(verify_by(&sender, &example()).as_deref(), Ok(ID));
    }
    // By the sender, who signs with both for a while, beside signatures of other kinds.
    let signatures = format!("v1a,AAAA v1,AAAA v2,{0} garbage v1,!! {SIGNATURE}", &SIGNATURE[3..]);
    let request = example().with("webhook-signature", signatures);
    assert_eq!(verify(&request).as_deref(), Ok(ID));

    let without = StandardWebhooks::new([other]).unwrap();
    assert_eq!(verify_by(&without, &request), Err(Refusal::WrongSignature));
}

#[test]
fn only_the_whole_signature_of_its_kind_counts() {
    let base64 = &SIGNATURE[3..];
    for signature in
        [base64, &format!("v2,{base64}"), &format!("v1a,{base64}"), "v1,", "v1", "v1,g0hM9SsE", " "]
    {
        let request = example().with("webhook-signature", signature);
        assert_eq!(verify(&request), Err(Refusal::WrongSignature), "{signature}");
    }
}

#[test]
fn a_secret_that_protects_nothing_is_refused() {
    let refused = |secrets: &[&str]| StandardWebhooks::new(secrets).unwrap_err();
    assert_eq!(refused(&[]), SecretError::Missing);
    assert_eq!(refused(&[""]), SecretError::Empty);
    assert_eq!(refused(&["whsec_"]), SecretError::Empty);
    assert_eq!(refused(&[SECRET, ""]), SecretError::Empty);
    for wrong in ["hunter2", "whsec_hunter2", "whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", " "] {
        let error = refused(&[wrong]);
        assert_eq!(error, SecretError::Malformed);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    assert!(!format!("{:?}", sender()).contains("MfKQ"));
}

proptest! {
    #[test]
    fn garbage_is_refused(request in garbage(
        &["webhook-id", "webhook-timestamp", "webhook-signature", "svix-id", "svix-signature"],
        &["msg_1", ".", "1614265330", "v1,", "v1", " ", ",", "AAAA", "=", SIGNATURE],
    )) {
        prop_assert!(verify(&request).is_err());
    }
}
