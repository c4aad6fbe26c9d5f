//! What the laws try: bytes of every kind, and TTLs around the boundaries.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use derp_kv_core::MAX_TTL;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Bytes that print as a byte string, shortened where they are long.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

const SHOWN: usize = 48;

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0[..self.0.len().min(SHOWN)].escape_ascii())?;
        if self.0.len() > SHOWN {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// What is printed of a value that a law compares.
pub(crate) fn shown(value: &impl fmt::Debug) -> String {
    shortened(format!("{value:?}"), 400)
}

/// `text`, cut where it is longer than `most` bytes.
pub(crate) fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        let total = text.len();
        // No character is longer than four bytes, so one begins among the last four. `floor_char_boundary` is newer
        // than the least toolchain.
        let end = (most.saturating_sub(3)..=most).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or(0));
        text.push_str(&format!("… ({total} characters)"));
    }
    text
}

/// Bytes that stores are known to stumble over.
const NASTY: &[&[u8]] = &[
    b"",
    b"\0",
    b"\0\0a",
    b"a\0b",
    b"\xff\xfe",
    b"\xc3\x28",
    b"*",
    b"?",
    b"[a-z]",
    b"\\*",
    b"{tag}",
    b"{}",
    b"}{",
    b"%s",
    b" ",
    b"\r\n",
    b"$5\r\nhello\r\n",
    b"key:lock",
    b"a:b:c",
    b"'\"`;--",
    b"-0",
    b"+1",
    b"007",
    b"9223372036854775807",
    b"nil",
    "\u{1f980}\u{0301}".as_bytes(),
];

/// Any bytes for a value, the nasty ones often.
pub(crate) fn bytes() -> impl Strategy<Value = Blob> + Clone {
    some_bytes(3_000)
}

/// Any bytes for a key or a prefix: as [`bytes`], and two of them together are a key that every
/// store takes, however low its [`Profile::longest_key`](crate::Profile::longest_key).
pub(crate) fn key_bytes() -> impl Strategy<Value = Blob> + Clone {
    some_bytes(600)
}

fn some_bytes(most: usize) -> impl Strategy<Value = Blob> + Clone {
    prop_oneof![
        3 => select(NASTY).prop_map(Blob::from),
        3 => vec(any::<u8>(), 0..24).prop_map(Blob),
        1 => (any::<u8>(), 200_usize..most).prop_map(|(byte, len)| Blob(vec![byte; len])),
    ]
}

/// Bytes that nothing can compress, the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    // SplitMix64: every bit of its output depends on every bit of its state.
    let mut state = 0x6b65_7973_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Short keys, so that several of them share prefixes.
pub(crate) fn key() -> impl Strategy<Value = Blob> + Clone {
    prop_oneof![
        2 => select(NASTY).prop_map(Blob::from),
        2 => vec(select(&b"ab*?[]\\{}\0\xff:"[..]), 0..5).prop_map(Blob),
        1 => vec(any::<u8>(), 1..40).prop_map(Blob),
    ]
}

/// Values, now and then one of a mebibyte.
pub(crate) fn value() -> impl Strategy<Value = Blob> + Clone {
    let mebibyte = any::<u8>().prop_map(|seed| {
        Blob(
            (0..1 << 20).map(|i: u32| seed.wrapping_add((i ^ (i >> 8)).to_le_bytes()[0])).collect(),
        )
    });
    prop_oneof![30 => bytes(), 1 => mebibyte]
}

/// Sets of keys, all different.
pub(crate) fn distinct_keys(
    count: impl Into<proptest::collection::SizeRange>,
) -> impl Strategy<Value = Vec<Blob>> + Clone {
    proptest::collection::btree_set(key(), count).prop_map(|keys| keys.into_iter().collect())
}

/// TTLs that every store accepts and that outlast any test.
pub(crate) fn long_ttl() -> impl Strategy<Value = Duration> + Clone {
    prop_oneof![
        (100_u64..1_000_000).prop_map(Duration::from_secs),
        (100_000_000_u64..u64::from(u32::MAX)).prop_map(Duration::from_micros),
        Just(MAX_TTL),
    ]
}

/// No TTL, or a long one.
pub(crate) fn lasting() -> impl Strategy<Value = Option<Duration>> + Clone {
    proptest::option::of(long_ttl())
}

/// TTLs that every store refuses.
pub(crate) fn invalid_ttl() -> impl Strategy<Value = Duration> + Clone {
    prop_oneof![
        2 => Just(Duration::ZERO),
        1 => Just(MAX_TTL + Duration::from_nanos(1)),
        1 => Just(MAX_TTL + Duration::from_millis(1)),
        1 => Just(Duration::MAX),
        1 => (0..u64::MAX - MAX_TTL.as_secs() - 1)
            .prop_map(|above| MAX_TTL + Duration::from_secs(above + 1)),
    ]
}
