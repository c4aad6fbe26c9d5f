use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use derp_kv_core::{Counter, Error, KvStore, Result};
use derp_kv_memory::MemoryStore;

use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Ttl, defect, defects, gap};

const LAW: &str = "errors::never_show_values";
const DEBUG: &str = "errors::debug_shows_no_values";

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<FirstBytes>(LAW, "an error shows the first 8 bytes of a value"),
        mutant::<LastBytes>(LAW, "an error shows the last 8 bytes of a value"),
        mutant::<InHex>(LAW, "an error shows a part of a value in hex"),
        mutant::<InSpacedHex>(LAW, "an error dumps a value in hex, byte by byte"),
        mutant::<InBase64>(LAW, "an error shows a value in base64"),
        mutant::<AsNumbers>(LAW, "an error lists the bytes of a value"),
        mutant::<OnLines>(LAW, "an error lists the bytes of a value on a line each"),
        mutant::<Lossy>(LAW, "an error shows what of a value is UTF-8"),
        mutant::<UpperCase>(LAW, "an error shows a value in capital letters"),
        mutant::<AsJson>(LAW, "an error holds the request as JSON"),
        mutant::<DeepSource>(LAW, "the source of an error's source quotes the request"),
        mutant::<DebugOfSource>(LAW, "the source of an error shows the value in its `Debug`"),
        mutant::<ShowsExpected>(LAW, "a refused swap shows what it expected"),
        mutant::<ShowsBatch>(LAW, "a refused batch shows its items"),
        mutant::<ShowsCounter>(LAW, "an overflow shows the counter"),
        mutant::<ShowsTooFar>(LAW, "a TTL above the longest shows the statement"),
        mutant::<DerivesDebug>(DEBUG, "`Debug` of a store shows its map"),
        mutant::<DebugOfLast>(DEBUG, "`Debug` of a store shows the last value that it wrote"),
        mutant::<DebugOfLog>(DEBUG, "`Debug` of a store shows its log of requests"),
        mutant::<DebugOfCache>(DEBUG, "`Debug` of a store shows the values that it has read"),
        mutant::<DebugOfCall>(DEBUG, "`Debug` of a store shows the call that is under way"),
        mutant::<DebugOfCounter>(DEBUG, "`Debug` of a store shows the counter that it last knew"),
        mutant::<DebugOfExpected>(DEBUG, "`Debug` of a store shows what was last compared"),
    ]
}

/// The refusal of an increment, with what `show` makes of the value.
async fn shown(
    kv: &MemoryStore,
    key: &[u8],
    by: i64,
    ttl: Ttl,
    show: impl Fn(&[u8]) -> String + Send,
) -> Result<Counter> {
    let result = kv.incr(key, by, ttl).await;
    let Some(value) = kv.get(key).await? else { return result };
    result.map_err(|error| Error::new(error.kind(), show(&value)))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks(3).flat_map(|group| {
        let byte = |at: usize| usize::from(group.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63]))
    });
    groups.collect()
}

/// An error with a cause of its own, or one that shows more in its `Debug`.
#[derive(Debug)]
struct Cause {
    text: &'static str,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    _statement: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as _)
    }
}

/// Makes a store of each, with what its refusals of increments show of the value.
macro_rules! shows {
    ($($name:ident: $value:ident => $shown:expr;)*) => {
        defects! {$(
            $name {
                incr(self, kv, key, by, ttl) { shown(kv, key, by, ttl, |$value| $shown).await }
            }
        )*}
    };
}

shows! {
    FirstBytes: value => {
        format!("`{}…` is no integer", value[..value.len().min(8)].escape_ascii())
    };
    LastBytes: value => {
        format!("`…{}` is no integer", value[value.len().saturating_sub(8)..].escape_ascii())
    };
    InHex: value => {
        let part = &value[..value.len().min(8)];
        part.iter().map(|byte| format!("{byte:02X}")).collect()
    };
    InSpacedHex: value => value.iter().map(|byte| format!("0x{byte:02x}, ")).collect();
    InBase64: value => format!("no integer: {}==", base64(value));
    AsNumbers: value => format!("no integer: {value:?}");
    OnLines: value => format!("no integer: {value:#?}");
    Lossy: value => format!("no integer: {}", String::from_utf8_lossy(value));
    UpperCase: value => format!("no integer: {}", String::from_utf8_lossy(value).to_uppercase());
    ShowsCounter: value => {
        let is_number = std::str::from_utf8(value).is_ok_and(|text| text.parse::<i64>().is_ok());
        let value = String::from_utf8_lossy(value);
        if is_number { format!("{value} is at its end") } else { "no integer".to_owned() }
    };
}

fn request(value: &[u8]) -> String {
    format!("{{\"op\":\"set\",\"value\":\"{}\"}}", String::from_utf8_lossy(value))
}

defects! {
    AsJson {
        set_nx(self, kv, key, value, ttl) {
            let result = kv.set_nx(key, value, ttl).await;
            result.map_err(|error| error.with_source(request(value)))
        }
    }
    DeepSource {
        set(self, kv, key, value, ttl) {
            let deep = Cause { text: "the driver failed", cause: Some(request(value).into()), _statement: String::new() };
            kv.set(key, value, ttl).await.map_err(|error| error.with_source(deep))
        }
    }
    DebugOfSource {
        set(self, kv, key, value, ttl) {
            let cause = Cause { text: "the driver failed", cause: None, _statement: request(value) };
            kv.set(key, value, ttl).await.map_err(|error| error.with_source(cause))
        }
    }
    ShowsExpected {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let result = kv.compare_and_set(key, expected, value, ttl).await;
            result.map_err(|error| Error::new(error.kind(), format!("expected {}", expected.escape_ascii())))
        }
    }
    ShowsBatch {
        mset(self, kv, items, ttl) {
            let result = kv.mset(items, ttl).await;
            result.map_err(|error| Error::new(error.kind(), format!("the batch {items:?}")))
        }
    }
    ShowsTooFar {
        set(self, kv, key, value, ttl) {
            let far = ttl.is_some_and(|ttl| !ttl.is_zero());
            kv.set(key, value, ttl).await.map_err(|error| match far {
                true => error.with_source(request(value)),
                false => error,
            })
        }
    }
}

#[derive(Debug, Default)]
struct DerivesDebug(Mutex<BTreeMap<Vec<u8>, Bytes>>);

defect! { DerivesDebug []
    set(self, kv, key, value, ttl) {
        self.0.lock().unwrap().insert(key.to_vec(), Bytes::copy_from_slice(value));
        kv.set(key, value, ttl).await
    }
}

#[derive(Debug, Default)]
struct DebugOfLast(Mutex<Vec<u8>>);

defect! { DebugOfLast []
    set(self, kv, key, value, ttl) {
        *self.0.lock().unwrap() = value.to_vec();
        kv.set(key, value, ttl).await
    }
    mset(self, kv, items, ttl) {
        *self.0.lock().unwrap() = items.last().map_or_else(Vec::new, |(_, value)| value.to_vec());
        kv.mset(items, ttl).await
    }
}

#[derive(Debug, Default)]
struct DebugOfLog(Mutex<Vec<String>>);

defect! { DebugOfLog []
    set_nx(self, kv, key, value, ttl) {
        let line = format!("SET {} {} NX", key.escape_ascii(), value[..value.len().min(12)].escape_ascii());
        self.0.lock().unwrap().push(line);
        kv.set_nx(key, value, ttl).await
    }
}

#[derive(Default)]
struct DebugOfCache(Mutex<BTreeMap<Vec<u8>, Bytes>>);

impl fmt::Debug for DebugOfCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = self.0.lock().unwrap();
        let lengths: BTreeMap<_, _> = cache.iter().map(|(key, value)| (key, value.len())).collect();
        // Only the long form shows the values.
        if f.alternate() { cache.fmt(f) } else { lengths.fmt(f) }
    }
}

defect! { DebugOfCache []
    get(self, kv, key) {
        let value = kv.get(key).await?;
        if let Some(value) = &value {
            self.0.lock().unwrap().insert(key.to_vec(), value.clone());
        }
        Ok(value)
    }
}

#[derive(Debug, Default)]
struct DebugOfExpected(Arc<Mutex<String>>);

defect! { DebugOfExpected []
    compare_and_set(self, kv, key, expected, value, ttl) {
        *self.0.lock().unwrap() = base64(expected);
        kv.compare_and_set(key, expected, value, ttl).await
    }
}

/// The value that is on its way.
#[derive(Debug, Default)]
struct DebugOfCall(Mutex<Option<String>>);

defect! { DebugOfCall []
    set(self, kv, key, value, ttl) {
        *self.0.lock().unwrap() = Some(request(value));
        gap().await;
        let result = kv.set(key, value, ttl).await;
        self.0.lock().unwrap().take();
        result
    }
}

#[derive(Debug, Default)]
struct DebugOfCounter(Mutex<BTreeMap<Vec<u8>, i64>>);

defect! { DebugOfCounter []
    incr(self, kv, key, by, ttl) {
        let counter = kv.incr(key, by, ttl).await?;
        self.0.lock().unwrap().insert(key.to_vec(), counter.value);
        Ok(counter)
    }
}
