//! Stores that skip writes which change nothing, or renew what they only read or refuse.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;

use super::broken::{Mutant, mutant};
use super::defect::{Ttl, defect, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    let renew = "expiry::equal_writes_renew";
    vec![
        mutant::<SkipsEqualSet>(renew, "`set` of the value that is there is skipped"),
        mutant::<SkipsEqualMset>(renew, "`mset` skips the items that are there already"),
        mutant::<SkipsEqualSwap>(renew, "a swap of a value for itself only compares"),
        mutant::<SkipsEqualExpire>(renew, "`expire` skips a TTL that the key was given last"),
        mutant::<SkipsEqualPair>(renew, "`set` of the same value with the same TTL is skipped"),
        mutant::<IncrByZeroRenews>(renew, "`incr` by zero renews the TTL"),
        mutant::<RefusedSetNxRenews>(renew, "a refused `set_nx` renews the TTL"),
        mutant::<RefusedSwapRenews>(renew, "a refused swap renews the TTL"),
        mutant::<RefusedDeleteRenews>(renew, "a refused `compare_and_delete` renews the TTL"),
        mutant::<ExistsRenews>(renew, "`exists` renews the TTL"),
        mutant::<MgetRenews>(renew, "`mget` renews the TTLs"),
        mutant::<ScanRenews>(renew, "`scan` renews the TTLs of what it yields"),
    ]
}

/// The TTL with which each key was written last.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<Mutex<HashMap<Vec<u8>, Ttl>>>);

impl Asked {
    fn note(&self, key: &[u8], ttl: Ttl) -> Ttl {
        self.0.lock().unwrap().insert(key.to_vec(), ttl).flatten()
    }

    fn of(&self, key: &[u8]) -> Ttl {
        self.0.lock().unwrap().get(key).copied().flatten()
    }

    /// Starts the TTL of a key that is there anew.
    async fn renew(&self, kv: &MemoryStore, key: &[u8]) -> Result<()> {
        if let (Some(ttl), Some(Expiry::In(_))) = (self.of(key), kv.ttl(key).await?) {
            kv.expire(key, ttl).await?;
        }
        Ok(())
    }
}

/// Makes stores that note the TTL of each `set`, `expire`, `incr` and `set_nx` that writes, and do
/// something else wrong.
macro_rules! noting {
    ($($name:ident { $($calls:tt)* })*) => {$(
        #[derive(Clone, Debug, Default)]
        struct $name(Asked);

        defect! { $name []
            set(self, kv, key, value, ttl) {
                self.0.note(key, ttl);
                kv.set(key, value, ttl).await
            }
            $($calls)*
        }
    )*};
}

noting! {
    RefusedSetNxRenews {
        set_nx(self, kv, key, value, ttl) {
            let written = kv.set_nx(key, value, ttl).await?;
            if written { self.0.note(key, ttl); } else { self.0.renew(kv, key).await?; }
            Ok(written)
        }
    }
    IncrByZeroRenews {
        incr(self, kv, key, by, ttl) {
            if by == 0 {
                self.0.renew(kv, key).await?;
            }
            kv.incr(key, by, ttl).await
        }
    }
    RefusedSwapRenews {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let swapped = kv.compare_and_set(key, expected, value, ttl).await?;
            if !swapped {
                self.0.renew(kv, key).await?;
            }
            Ok(swapped)
        }
    }
    RefusedDeleteRenews {
        compare_and_delete(self, kv, key, expected) {
            let deleted = kv.compare_and_delete(key, expected).await?;
            if !deleted {
                self.0.renew(kv, key).await?;
            }
            Ok(deleted)
        }
    }
    ExistsRenews {
        exists(self, kv, key) {
            self.0.renew(kv, key).await?;
            kv.exists(key).await
        }
    }
    MgetRenews {
        mget(self, kv, keys) {
            for key in keys {
                self.0.renew(kv, key).await?;
            }
            kv.mget(keys).await
        }
    }
    ScanRenews {
        scan(self, kv, prefix) {
            let (asked, kv, keys) = (self.0.clone(), kv.clone(), kv.scan(prefix));
            let renewed = keys.then(move |key| {
                let (asked, kv) = (asked.clone(), kv.clone());
                async move {
                    let key = key?;
                    asked.renew(&kv, &key).await?;
                    Ok(key)
                }
            });
            renewed.boxed()
        }
    }
}

#[derive(Clone, Debug, Default)]
struct SkipsEqualExpire(Asked);

defect! { SkipsEqualExpire []
    set(self, kv, key, value, ttl) {
        self.0.note(key, ttl);
        kv.set(key, value, ttl).await
    }
    expire(self, kv, key, ttl) {
        let there = kv.exists(key).await?;
        if there && self.0.note(key, Some(ttl)) == Some(ttl) {
            return Ok(true);
        }
        kv.expire(key, ttl).await
    }
}

#[derive(Clone, Debug, Default)]
struct SkipsEqualPair(Asked);

defect! { SkipsEqualPair []
    set(self, kv, key, value, ttl) {
        let equal = kv.get(key).await?.as_deref() == Some(value);
        if self.0.note(key, ttl) == ttl && ttl.is_some() && equal {
            return Ok(());
        }
        kv.set(key, value, ttl).await
    }
}

defects! {
    SkipsEqualSet {
        set(self, kv, key, value, ttl) {
            match kv.get_with_ttl(key).await? {
                Some((found, Expiry::In(_))) if found == value && ttl.is_some() => Ok(()),
                _ => kv.set(key, value, ttl).await,
            }
        }
    }
    SkipsEqualMset {
        mset(self, kv, items, ttl) {
            for (key, value) in items {
                match kv.get_with_ttl(key).await? {
                    Some((found, Expiry::In(_))) if found == *value && ttl.is_some() => {}
                    _ => kv.set(key, value, ttl).await?,
                }
            }
            Ok(())
        }
    }
    SkipsEqualSwap {
        compare_and_set(self, kv, key, expected, value, ttl) {
            if expected == value && kv.get(key).await?.as_deref() == Some(value) {
                return Ok(true);
            }
            kv.compare_and_set(key, expected, value, ttl).await
        }
    }
}
