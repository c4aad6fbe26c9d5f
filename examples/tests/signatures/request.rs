//! A webhook as it arrives, and what can be wrong with it.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use derp_kv_examples::signatures::Refusal;
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha2::Sha256;

/// The tolerance where a test sets none.
pub(crate) const FIVE_MINUTES: u64 = 300;

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(headers: &[(&'static str, &str)], body: impl AsRef<[u8]>) -> Self {
        let mut request = Self { headers: HeaderMap::new(), body: body.as_ref().to_vec() };
        headers.iter().for_each(|(name, value)| request.set(name, value));
        request
    }

    pub(crate) fn set(&mut self, name: &'static str, value: impl AsRef<[u8]>) {
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a header");
        self.headers.insert(HeaderName::from_static(name), value);
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.set(name, value);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.remove(name).expect("it was there");
        self
    }

    pub(crate) fn repeating(mut self, name: &'static str) -> Self {
        let value = self.headers[name].clone();
        self.headers.append(name, value);
        self
    }
}

pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What the sender computes, here in another way than the recipes do.
pub(crate) fn hmac(key: &[u8], signed: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.chain_update(signed).finalize().into_bytes().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The header `name` missing, twice, and not text.
pub(crate) fn needs_one(
    name: &'static str,
    right: &Request,
    verify: impl Fn(&Request) -> Result<String, Refusal>,
) {
    assert_eq!(verify(&right.clone().without(name)), Err(Refusal::Missing(name)));
    assert_eq!(verify(&right.clone().repeating(name)), Err(Refusal::Repeated(name)));
    assert_eq!(verify(&right.clone().with(name, b"\xff\xfe")), Err(Refusal::Malformed(name)));
    assert!(verify(&right.clone().with(name, "")).is_err());
    assert!(verify(&right.clone().with(name, "x".repeat(100_000))).is_err());
}

/// One bit of the body, anywhere, decides.
pub(crate) fn every_bit_of_the_body_counts(
    right: &Request,
    verify: impl Fn(&Request) -> Result<String, Refusal>,
) {
    for bit in 0..right.body.len() * 8 {
        let mut other = right.clone();
        other.body[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(verify(&other), Err(Refusal::WrongSignature), "bit {bit}");
    }
    for body in [&right.body[1..], &right.body[..right.body.len() - 1], b""] {
        let other = Request { body: body.to_vec(), ..right.clone() };
        assert_eq!(verify(&other), Err(Refusal::WrongSignature));
    }
}

/// Any values of the headers `names`: bytes, and what is nearly right.
pub(crate) fn garbage(
    names: &'static [&'static str],
    nearly: &'static [&'static str],
) -> impl Strategy<Value = Request> {
    let byte = prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8];
    let bytes = prop::collection::vec(byte, 0..80);
    let pieces = prop::collection::vec(prop::sample::select(nearly), 0..8);
    let pieces = pieces.prop_map(|pieces| pieces.concat().into_bytes());
    let header = (prop::sample::select(names), prop_oneof![bytes, pieces]);
    let headers = prop::collection::vec(header, 0..8);
    let body = prop::collection::vec(any::<u8>(), 0..80);
    (headers, body).prop_map(|(headers, body)| {
        let mut request = Request { headers: HeaderMap::new(), body };
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(&value).expect("only bytes that a header may have");
            request.headers.append(name, value);
        }
        request
    })
}
