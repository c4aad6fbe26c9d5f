use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use std::time::Duration;

use super::folds::folds;
use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Ttl, defects};

const LAW: &str = "basics::keys_are_told_apart";

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<DecodesPercent>(LAW, "a key is decoded as a part of a URL"),
        mutant::<PlusIsSpace>(LAW, "a `+` in a key is a space, as in a form"),
        mutant::<JoinsSlashes>(LAW, "two slashes in a key are one"),
        mutant::<CutsSlash>(LAW, "a slash at the end of a key is cut"),
        mutant::<WalksPaths>(LAW, "a `.` between slashes in a key is dropped, as in a path"),
        mutant::<BackslashIsSlash>(LAW, "a backslash in a key is a slash"),
        mutant::<Lossy>(LAW, "what is no UTF-8 in a key is replaced"),
        mutant::<AsLatin1>(LAW, "a key that is no UTF-8 is read as Latin-1"),
        mutant::<Composes>(LAW, "an accent in a key is joined with its letter"),
        mutant::<DropsMark>(LAW, "a byte-order mark before a key is dropped"),
        mutant::<LowersText>(LAW, "keys that are text are lower-cased, letters beyond ASCII too"),
        mutant::<LowersLong>(LAW, "keys longer than 100 bytes are compared without regard to case"),
        mutant::<SetsBit>(LAW, "a bit is set in each byte of a key, for lower case"),
        mutant::<TrimsEnd>(LAW, "white space at the end of a key is cut"),
        mutant::<PadsWithNul>(LAW, "NULs at the end of a key are padding"),
        mutant::<DropsNewline>(LAW, "a newline at the end of a key is cut"),
        mutant::<NumberKeys>(LAW, "a key that is a number is kept as one"),
        mutant::<FloatKeys>(LAW, "a key that is a number is kept as a float"),
        mutant::<Unescapes>(LAW, "escapes in a key are resolved"),
        mutant::<JoinsQuotes>(LAW, "two quotes in a key are one"),
        mutant::<DecodesHex>(LAW, "a key in hex is that which it stands for"),
        mutant::<HexLoses>(LAW, "keys are kept in hex without leading zeros"),
        mutant::<EmptyIsNul>(LAW, "the empty key is kept as a NUL"),
        mutant::<EmptyIsNull>(LAW, "the empty key is kept as `null`"),
        mutant::<FileNames>(LAW, "what no file name may hold is an underscore in a key"),
        mutant::<LengthInByte>(LAW, "the length of a key is kept in a byte"),
        mutant::<Cuts64>(LAW, "keys are cut after 64 bytes"),
        mutant::<Cuts191>(LAW, "keys are cut after 191 bytes"),
        mutant::<Cuts255>(LAW, "keys are cut after 255 bytes"),
        mutant::<Cuts1000>(LAW, "keys are cut after 1,000 bytes"),
        mutant::<HashesEnds>(LAW, "of a key the first and the last bytes count"),
        mutant::<HashesSum>(LAW, "keys are kept under the sum of their bytes"),
        mutant::<SetNxFolds>(LAW, "`set_nx` takes keys without regard to case"),
        mutant::<IncrTrims>(LAW, "`incr` trims its key"),
        mutant::<DeleteCuts>(LAW, "`delete` cuts its key at a NUL"),
        mutant::<DeleteManyDecodes>(LAW, "`delete_many` decodes its keys as parts of a URL"),
        mutant::<MgetLossy>(LAW, "`mget` asks for what is left of its keys as UTF-8"),
        mutant::<MsetFolds>(LAW, "`mset` takes keys without regard to case"),
        mutant::<ExistsCuts>(LAW, "`exists` cuts its key after 128 bytes"),
        mutant::<TtlTrims>(LAW, "`ttl` trims its key"),
        mutant::<ExpireDecodes>(LAW, "`expire` decodes its key as a part of a URL"),
        mutant::<ReadsDatedFolds>(LAW, "`get_with_ttl` takes keys without regard to case"),
        mutant::<SwapCuts>(LAW, "`compare_and_set` cuts its key at a NUL"),
        mutant::<UnlockLossy>(LAW, "`compare_and_delete` looks for its key as UTF-8"),
        mutant::<ScanLossy>(LAW, "a scan yields keys as UTF-8"),
        mutant::<ScanTrims>(LAW, "a scan yields keys without NULs at their end"),
        mutant::<ScanHides>(LAW, "a scan hides the keys that the store takes for its own"),
        mutant::<TtlBeside>(LAW, "a TTL is kept in another key beside the key"),
        mutant::<TtlBesideHidden>(LAW, "a TTL is kept in a key beside, which scans hide"),
        mutant::<LocksBeside>(LAW, "`compare_and_set` locks its key by another one beside it"),
        mutant::<DeletesBeside>(LAW, "`delete` takes the keys that begin with its key along"),
        mutant::<KeepsMeta>(LAW, "a count of the writes is kept under a key of its own"),
    ]
}

fn replaced(key: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = key;
    while let Some(byte) = rest.first() {
        match rest.strip_prefix(from) {
            Some(after) => {
                replaced.extend_from_slice(to);
                rest = after;
            }
            None => {
                replaced.push(*byte);
                rest = &rest[1..];
            }
        }
    }
    replaced
}

fn hex(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn percent_decoded(key: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = key;
    while let Some(byte) = rest.first() {
        let escaped = if *byte == b'%' { rest.get(1..3).and_then(hex) } else { None };
        decoded.push(escaped.unwrap_or(*byte));
        rest = &rest[if escaped.is_some() { 3 } else { 1 }..];
    }
    decoded
}

fn lossy(key: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(key).into_owned().into_bytes()
}

fn until_nul(key: &[u8]) -> Vec<u8> {
    key.split(|byte| *byte == 0).next().unwrap_or(key).to_vec()
}

fn cut(key: &[u8], at: usize) -> Vec<u8> {
    key[..key.len().min(at)].to_vec()
}

fn text(key: &[u8], map: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let text = std::str::from_utf8(key).ok().and_then(map);
    text.map_or_else(|| key.to_vec(), String::into_bytes)
}

fn without_end(key: &[u8], end: impl Fn(u8) -> bool) -> Vec<u8> {
    let kept = key.iter().rposition(|byte| !end(*byte)).map_or(0, |last| last + 1);
    key[..kept].to_vec()
}

folds! {
    DecodesPercent: key => percent_decoded(key);
    PlusIsSpace: key => replaced(key, b"+", b" ");
    JoinsSlashes: key => replaced(key, b"//", b"/");
    CutsSlash: key => key.strip_suffix(b"/").unwrap_or(key).to_vec();
    WalksPaths: key => replaced(key, b"/./", b"/");
    BackslashIsSlash: key => replaced(key, b"\\", b"/");
    Lossy: key => lossy(key);
    AsLatin1: key => match std::str::from_utf8(key) {
        Ok(_) => key.to_vec(),
        Err(_) => key.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes(),
    };
    Composes: key => replaced(key, "e\u{301}".as_bytes(), "é".as_bytes());
    DropsMark: key => key.strip_prefix(b"\xef\xbb\xbf").unwrap_or(key).to_vec();
    LowersText: key => {
        text(key, |text| if text.is_ascii() { None } else { Some(text.to_lowercase()) })
    };
    LowersLong: key => {
        if key.len() > 100 { key.to_ascii_lowercase() } else { key.to_vec() }
    };
    SetsBit: key => {
        key.iter().map(|byte| if (0x40..0x60).contains(byte) { byte | 0x20 } else { *byte }).collect()
    };
    TrimsEnd: key => without_end(key, |byte| byte == b' ');
    PadsWithNul: key => without_end(key, |byte| byte == 0);
    DropsNewline: key => key.strip_suffix(b"\n").unwrap_or(key).to_vec();
    NumberKeys: key => text(key, |text| Some(text.parse::<i64>().ok()?.to_string()));
    FloatKeys: key => {
        text(key, |text| Some(text.parse::<f64>().ok().filter(|n| n.is_finite())?.to_string()))
    };
    Unescapes: key => replaced(key, b"\\n", b"\n");
    JoinsQuotes: key => replaced(key, b"''", b"'");
    DecodesHex: key => match key.strip_prefix(b"\\x") {
        Some(digits) if digits.len() % 2 == 0 => {
            digits.chunks(2).map(hex).collect::<Option<_>>().unwrap_or_else(|| key.to_vec())
        }
        _ => key.to_vec(),
    };
    HexLoses: key => key.iter().flat_map(|byte| format!("{byte:x}").into_bytes()).collect();
    EmptyIsNul: key => if key.is_empty() { b"\0".to_vec() } else { key.to_vec() };
    EmptyIsNull: key => if key.is_empty() { b"null".to_vec() } else { key.to_vec() };
    FileNames: key => {
        key.iter().map(|byte| if b"/\\:*?\"<>|".contains(byte) { b'_' } else { *byte }).collect()
    };
    LengthInByte: key => {
        if key.len() < 256 { key.to_vec() } else { cut(key, key.len() % 256) }
    };
    Cuts64: key => cut(key, 64);
    Cuts191: key => cut(key, 191);
    Cuts255: key => cut(key, 255);
    Cuts1000: key => cut(key, 1_000);
    HashesEnds: key => match key.len() {
        0..32 => key.to_vec(),
        length => [&key[..16], &key[length - 16..], &length.to_le_bytes()].concat(),
    };
    HashesSum: key => {
        let sum: u32 = key.iter().map(|byte| u32::from(*byte)).sum();
        [&key.len().to_le_bytes()[..], &sum.to_le_bytes()].concat()
    };
}

const OWN: [&[u8]; 2] = [b"__", b"_expiry:"];

fn beside(key: &[u8]) -> Vec<u8> {
    [key, b":ttl"].concat()
}

defects! {
    SetNxFolds {
        set_nx(self, kv, key, value, ttl) { kv.set_nx(&key.to_ascii_lowercase(), value, ttl).await }
    }
    IncrTrims {
        incr(self, kv, key, by, ttl) { kv.incr(key.trim_ascii(), by, ttl).await }
    }
    DeleteCuts {
        delete(self, kv, key) { kv.delete(&until_nul(key)).await }
    }
    DeleteManyDecodes {
        delete_many(self, kv, keys) {
            let keys: Vec<_> = keys.iter().map(|key| percent_decoded(key)).collect();
            kv.delete_many(&keys.iter().map(Vec::as_slice).collect::<Vec<_>>()).await
        }
    }
    MgetLossy {
        mget(self, kv, keys) {
            let keys: Vec<_> = keys.iter().map(|key| lossy(key)).collect();
            kv.mget(&keys.iter().map(Vec::as_slice).collect::<Vec<_>>()).await
        }
    }
    MsetFolds {
        mset(self, kv, items, ttl) {
            let keys: Vec<_> = items.iter().map(|(key, _)| key.to_ascii_lowercase()).collect();
            let items: Vec<_> =
                keys.iter().zip(items).map(|(key, (_, value))| (&key[..], *value)).collect();
            kv.mset(&items, ttl).await
        }
    }
    ExistsCuts {
        exists(self, kv, key) {
            if key.len() <= 128 {
                return kv.exists(key).await;
            }
            Ok(kv.scan(&key[..128]).try_next().await?.is_some())
        }
    }
    TtlTrims {
        ttl(self, kv, key) { kv.ttl(key.trim_ascii_end()).await }
    }
    ExpireDecodes {
        expire(self, kv, key, ttl) { kv.expire(&percent_decoded(key), ttl).await }
    }
    ReadsDatedFolds {
        get_with_ttl(self, kv, key) { kv.get_with_ttl(&key.to_ascii_lowercase()).await }
    }
    SwapCuts {
        compare_and_set(self, kv, key, expected, value, ttl) {
            kv.compare_and_set(&until_nul(key), expected, value, ttl).await
        }
    }
    UnlockLossy {
        compare_and_delete(self, kv, key, expected) {
            kv.compare_and_delete(&lossy(key), expected).await
        }
    }
    ScanLossy {
        scan(self, kv, prefix) { kv.scan(prefix).map_ok(|key| lossy(&key).into()).boxed() }
    }
    ScanTrims {
        scan(self, kv, prefix) {
            kv.scan(prefix).map_ok(|key| without_end(&key, |byte| byte == 0).into()).boxed()
        }
    }
    ScanHides {
        scan(self, kv, prefix) {
            let shown = |key: &Bytes| {
                std::future::ready(!OWN.iter().any(|own| key.starts_with(own)))
            };
            kv.scan(prefix).try_filter(shown).boxed()
        }
    }
    TtlBeside {
        set(self, kv, key, value, ttl) {
            kv.set(key, value, ttl).await?;
            match ttl {
                Some(ttl) => kv.set(&beside(key), ttl.as_millis().to_string().as_bytes(), None).await,
                None => kv.delete(&beside(key)).await.map(drop),
            }
        }
    }
    TtlBesideHidden {
        set(self, kv, key, value, ttl) {
            kv.set(key, value, ttl).await?;
            if let Some(ttl) = ttl {
                kv.set(&beside(key), ttl.as_millis().to_string().as_bytes(), None).await?;
            }
            Ok(())
        }
        ttl(self, kv, key) {
            let Some(beside) = kv.get(&beside(key)).await? else { return kv.ttl(key).await };
            let millis = std::str::from_utf8(&beside).ok().and_then(|text| text.parse().ok());
            Ok(millis.map(|millis| Expiry::In(Duration::from_millis(millis))))
        }
        scan(self, kv, prefix) {
            let shown = |key: &Bytes| std::future::ready(!key.ends_with(b":ttl"));
            kv.scan(prefix).try_filter(shown).boxed()
        }
    }
    LocksBeside {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let lock = [key, b":lock"].concat();
            kv.set(&lock, b"locked", Some(Duration::from_secs(1))).await?;
            let swapped = kv.compare_and_set(key, expected, value, ttl).await;
            kv.delete(&lock).await?;
            swapped
        }
    }
    DeletesBeside {
        delete(self, kv, key) {
            if !key.is_empty() {
                let with = [key, b":"].concat();
                let along: Vec<_> = kv.scan(&with).try_collect().await?;
                let along: Vec<_> = along.iter().map(|key| &key[..]).collect();
                kv.delete_many(&along).await?;
            }
            kv.delete(key).await
        }
    }
    KeepsMeta {
        set(self, kv, key, value, ttl) {
            kv.set(key, value, ttl).await?;
            kv.set(b"__version", b"1", None).await
        }
        scan(self, kv, prefix) {
            let shown = |key: &Bytes| std::future::ready(!key.starts_with(b"__version"));
            kv.scan(prefix).try_filter(shown).boxed()
        }
    }
}
