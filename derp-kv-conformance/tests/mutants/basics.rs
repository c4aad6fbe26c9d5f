mod apart;
mod folds;
mod hashes;
mod lengths;
mod long;
mod sidecars;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, KvStore, Result};
use derp_kv_memory::MemoryStore;

use super::broken::{Mutant, mutant};
use super::defect::{Ttl, defect, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    [
        own(),
        lengths::mutants(),
        apart::mutants(),
        hashes::mutants(),
        long::mutants(),
        sidecars::mutants(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn own() -> Vec<Mutant> {
    vec![
        mutant::<StaleCache>(
            "basics::reads_your_writes",
            "`get` keeps what it has read once, whatever is written later",
        ),
        mutant::<HalfBatch>("basics::reads_your_writes", "`mset` writes its first key only"),
        mutant::<Hangs>("basics::reads_your_writes", "every second read never answers"),
        mutant::<Utf8>("basics::any_bytes", "values are mangled as UTF-8"),
        mutant::<NulEndsKey>("basics::any_bytes", "a NUL ends a key"),
        mutant::<FoldsCase>("basics::any_bytes", "keys are compared without regard to case"),
        mutant::<EmptyKeyPanics>("basics::any_bytes", "the empty key panics"),
        mutant::<MissIsError>("basics::missing_is_not_an_error", "a miss is an error"),
        mutant::<EmptyIsAbsent>(
            "basics::exists_agrees_with_get",
            "`exists` takes the empty value for absent",
        ),
        mutant::<SetKeepsTtl>("basics::set_replaces", "`set` without a TTL keeps the old one"),
        mutant::<FirstSetStays>("basics::set_replaces", "`set` leaves a present value"),
        mutant::<DeleteIsTrue>(
            "basics::delete_reports_presence",
            "`delete` is true for a missing key",
        ),
        mutant::<DeleteOnlyLooks>("basics::delete_reports_presence", "`delete` leaves the value"),
    ]
}

#[derive(Clone, Debug, Default)]
struct StaleCache(Arc<Mutex<HashMap<Vec<u8>, Bytes>>>);

defect! { StaleCache []
    get(self, kv, key) {
        if let Some(value) = self.0.lock().unwrap().get(key) {
            return Ok(Some(value.clone()));
        }
        let found = kv.get(key).await?;
        if let Some(value) = &found {
            self.0.lock().unwrap().insert(key.to_vec(), value.clone());
        }
        Ok(found)
    }
}

#[derive(Clone, Debug, Default)]
struct Hangs(Arc<Mutex<u32>>);

defect! { Hangs []
    get(self, kv, key) {
        let hangs = {
            let mut calls = self.0.lock().unwrap();
            *calls += 1;
            calls.is_multiple_of(2)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        kv.get(key).await
    }
}

fn until_nul(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).next().unwrap_or(key)
}

defects! {
    HalfBatch {
        mset(self, kv, items, ttl) { kv.mset(&items[..items.len().min(1)], ttl).await }
    }
    Utf8 {
        set(self, kv, key, value, ttl) {
            kv.set(key, String::from_utf8_lossy(value).as_bytes(), ttl).await
        }
    }
    NulEndsKey {
        set(self, kv, key, value, ttl) { kv.set(until_nul(key), value, ttl).await }
        get(self, kv, key) { kv.get(until_nul(key)).await }
    }
    FoldsCase {
        set(self, kv, key, value, ttl) { kv.set(&key.to_ascii_lowercase(), value, ttl).await }
        get(self, kv, key) { kv.get(&key.to_ascii_lowercase()).await }
        set_nx(self, kv, key, value, ttl) {
            kv.set_nx(&key.to_ascii_lowercase(), value, ttl).await
        }
    }
    EmptyKeyPanics {
        set(self, kv, key, value, ttl) {
            if key[0] == b'/' {
                return Err(Error::new(ErrorKind::InvalidArgument, "a key is no path"));
            }
            kv.set(key, value, ttl).await
        }
    }
    MissIsError {
        get(self, kv, key) {
            let found = kv.get(key).await?;
            found.map(Some).ok_or_else(|| Error::new(ErrorKind::Backend, "no such key"))
        }
    }
    EmptyIsAbsent {
        exists(self, kv, key) { Ok(kv.get(key).await?.is_some_and(|value| !value.is_empty())) }
    }
    SetKeepsTtl {
        set(self, kv, key, value, ttl) {
            let before = kv.ttl(key).await?.and_then(|expiry| expiry.remaining());
            kv.set(key, value, ttl.or(before)).await
        }
    }
    FirstSetStays {
        set(self, kv, key, value, ttl) { kv.set_nx(key, value, ttl).await.map(drop) }
    }
    DeleteIsTrue {
        delete(self, kv, key) { kv.delete(key).await.map(|_| true) }
    }
    DeleteOnlyLooks {
        delete(self, kv, key) { kv.exists(key).await }
    }
}
