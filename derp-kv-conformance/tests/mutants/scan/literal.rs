use bytes::Bytes;
use derp_kv_core::{KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::defects;

const LAW: &str = "scan::prefix_is_literal";

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<LikePercent>(LAW, "a `%` in a prefix stands for anything, as in SQL's LIKE"),
        mutant::<LikeUnderscore>(LAW, "a `_` in a prefix stands for any byte, as in SQL's LIKE"),
        mutant::<LikeEscapes>(LAW, "a backslash in a prefix escapes what follows"),
        mutant::<RegexDot>(LAW, "a `.` in a prefix stands for any byte"),
        mutant::<IgnoresCase>(LAW, "a prefix is compared without regard to case"),
        mutant::<Collates>(LAW, "a prefix is compared as text, accents aside"),
        mutant::<LastByteWraps>(
            LAW,
            "a scan ends at the prefix with its last byte plus one, wrapping",
        ),
        mutant::<LastByteSaturates>(
            LAW,
            "a scan ends at the prefix with its last byte plus at most one",
        ),
        mutant::<CarryMissing>(LAW, "the end of a scan is not carried beyond a last byte of 0xff"),
        mutant::<HighestIsNothing>(LAW, "a prefix of 0xff alone has no end, and finds nothing"),
        mutant::<EndsAtByte>(LAW, "a scan ends at the prefix with one 0xff"),
        mutant::<EndsAtFour>(LAW, "a scan ends at the prefix with four times 0xff"),
        mutant::<EndsAtTilde>(LAW, "a scan ends at the prefix with a `~`"),
        mutant::<EndsAtHighestChar>(LAW, "a scan ends at the prefix with the highest character"),
        mutant::<WholeCharacters>(LAW, "a prefix that ends within a character finds nothing"),
        mutant::<LossyPrefix>(LAW, "a prefix is replaced where it is no UTF-8"),
        mutant::<NulEndsPrefix>(LAW, "a NUL ends a prefix"),
        mutant::<CutsPrefix>(LAW, "a prefix is cut after 255 bytes"),
        mutant::<TrimsPrefix>(LAW, "white space around a prefix is cut"),
        mutant::<WithoutItself>(LAW, "a scan leaves out the key that is the prefix"),
        mutant::<AddsSeparator>(LAW, "a prefix is followed by a `:`"),
        mutant::<SkipsEmptyKey>(LAW, "a scan never yields the empty key"),
        mutant::<SignedBytes>(LAW, "a scan compares bytes as if they were signed"),
    ]
}

/// The keys that `keep` keeps.
fn those(
    kv: &MemoryStore,
    prefix: &[u8],
    keep: impl Fn(&[u8], &[u8]) -> bool + Send + 'static,
) -> BoxStream<'static, Result<Bytes>> {
    let prefix = prefix.to_vec();
    kv.scan(b"").try_filter(move |key| std::future::ready(keep(&prefix, key))).boxed()
}

/// The keys from the prefix to `end`, which is none of them.
fn range(
    kv: &MemoryStore,
    prefix: &[u8],
    end: Option<Vec<u8>>,
) -> BoxStream<'static, Result<Bytes>> {
    those(kv, prefix, move |prefix, key| {
        key >= prefix && end.as_ref().is_none_or(|end| key < &end[..])
    })
}

/// Whether the bytes are a beginning of the key, where `wild` bytes match any.
fn alike(prefix: &[u8], key: &[u8], wild: u8) -> bool {
    prefix.len() <= key.len()
        && prefix.iter().zip(key).all(|(byte, other)| *byte == wild || byte == other)
}

fn like(pattern: &[u8], key: &[u8]) -> bool {
    match (pattern, key) {
        ([], _) => true,
        ([b'%', rest @ ..], key) => (0..=key.len()).any(|skip| like(rest, &key[skip..])),
        ([byte, rest @ ..], [other, key @ ..]) => byte == other && like(rest, key),
        (_, []) => false,
    }
}

fn unescaped(prefix: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let mut plain = Vec::new();
    for byte in prefix {
        escaped = *byte == b'\\' && !escaped;
        if !escaped {
            plain.push(*byte);
        }
    }
    plain
}

fn folded(bytes: &[u8]) -> String {
    let plain = String::from_utf8_lossy(bytes).replace('é', "e").replace('É', "E");
    plain.replace('\u{301}', "")
}

fn with_last(prefix: &[u8], change: impl Fn(u8) -> u8) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    let last = end.last_mut()?;
    *last = change(*last);
    Some(end)
}

fn then(prefix: &[u8], end: &[u8]) -> Option<Vec<u8>> {
    (!prefix.is_empty()).then(|| [prefix, end].concat())
}

defects! {
    LikePercent {
        scan(self, kv, prefix) { those(kv, prefix, like) }
    }
    LikeUnderscore {
        scan(self, kv, prefix) { those(kv, prefix, |prefix, key| alike(prefix, key, b'_')) }
    }
    LikeEscapes {
        scan(self, kv, prefix) { kv.scan(&unescaped(prefix)) }
    }
    RegexDot {
        scan(self, kv, prefix) { those(kv, prefix, |prefix, key| alike(prefix, key, b'.')) }
    }
    IgnoresCase {
        scan(self, kv, prefix) {
            those(kv, prefix, |prefix, key| {
                key.len() >= prefix.len() && key[..prefix.len()].eq_ignore_ascii_case(prefix)
            })
        }
    }
    Collates {
        scan(self, kv, prefix) {
            those(kv, prefix, |prefix, key| {
                key.starts_with(prefix)
                    || std::str::from_utf8(prefix).is_ok() && folded(key).starts_with(&folded(prefix))
            })
        }
    }
    LastByteWraps {
        scan(self, kv, prefix) { range(kv, prefix, with_last(prefix, |byte| byte.wrapping_add(1))) }
    }
    LastByteSaturates {
        scan(self, kv, prefix) {
            range(kv, prefix, with_last(prefix, |byte| byte.saturating_add(1)))
        }
    }
    CarryMissing {
        scan(self, kv, prefix) {
            let ends = prefix.last().is_some_and(|byte| *byte < 0xff);
            range(kv, prefix, with_last(prefix, |byte| byte.wrapping_add(1)).filter(|_| ends))
        }
    }
    HighestIsNothing {
        scan(self, kv, prefix) {
            let highest = !prefix.is_empty() && prefix.iter().all(|byte| *byte == 0xff);
            those(kv, prefix, move |prefix, key| !highest && key.starts_with(prefix))
        }
    }
    EndsAtByte {
        scan(self, kv, prefix) { range(kv, prefix, then(prefix, b"\xff")) }
    }
    EndsAtFour {
        scan(self, kv, prefix) { range(kv, prefix, then(prefix, b"\xff\xff\xff\xff")) }
    }
    EndsAtTilde {
        scan(self, kv, prefix) { range(kv, prefix, then(prefix, b"~")) }
    }
    EndsAtHighestChar {
        scan(self, kv, prefix) { range(kv, prefix, then(prefix, "\u{10ffff}".as_bytes())) }
    }
    WholeCharacters {
        scan(self, kv, prefix) {
            those(kv, prefix, |prefix, key| {
                let cut = std::str::from_utf8(prefix).is_err() && std::str::from_utf8(key).is_ok();
                !cut && key.starts_with(prefix)
            })
        }
    }
    LossyPrefix {
        scan(self, kv, prefix) {
            those(kv, prefix, |prefix, key| {
                String::from_utf8_lossy(key).starts_with(&*String::from_utf8_lossy(prefix))
            })
        }
    }
    NulEndsPrefix {
        scan(self, kv, prefix) { kv.scan(prefix.split(|byte| *byte == 0).next().unwrap_or(prefix)) }
    }
    CutsPrefix {
        scan(self, kv, prefix) { kv.scan(&prefix[..prefix.len().min(255)]) }
    }
    TrimsPrefix {
        scan(self, kv, prefix) { kv.scan(prefix.trim_ascii()) }
    }
    WithoutItself {
        scan(self, kv, prefix) {
            those(kv, prefix, |prefix, key| key.starts_with(prefix) && key.len() > prefix.len())
        }
    }
    AddsSeparator {
        scan(self, kv, prefix) {
            those(kv, prefix, |prefix, key| {
                let rest = key.strip_prefix(prefix);
                rest.is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest[0] == b':')
            })
        }
    }
    SkipsEmptyKey {
        scan(self, kv, prefix) {
            those(kv, prefix, |prefix, key| !key.is_empty() && key.starts_with(prefix))
        }
    }
    SignedBytes {
        scan(self, kv, prefix) {
            let end = with_last(prefix, |byte| byte.wrapping_add(1));
            let signed = |bytes: &[u8]| bytes.iter().map(|byte| *byte as i8).collect::<Vec<_>>();
            those(kv, prefix, move |prefix, key| {
                let (key, prefix) = (signed(key), signed(prefix));
                key >= prefix && end.as_ref().is_none_or(|end| key < signed(end))
            })
        }
    }
}
