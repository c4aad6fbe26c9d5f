//! Values and keys that are too long for where they are put.

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;

use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Ttl, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    let any_bytes = "basics::any_bytes";
    vec![
        mutant::<SetNxCuts>(any_bytes, "`set_nx` cuts a value at 65,535 bytes"),
        mutant::<SwapCuts>(any_bytes, "a swap cuts the new value at 65,536 bytes"),
        mutant::<MsetLengthIsU16>(any_bytes, "`mset` keeps a value's length in 16 bits"),
        mutant::<MsetRefusesMegabyte>(any_bytes, "`mset` refuses a value above 1,000,000 bytes"),
        mutant::<SetCutsOddLength>(
            any_bytes,
            "`set` cuts what lies between 64 KiB and its column's end",
        ),
        mutant::<MgetCuts>(any_bytes, "`mget` cuts a value at 64 KiB"),
        mutant::<MgetMissesLarge>(any_bytes, "`mget` misses a value above 512 KiB"),
        mutant::<DatedCuts>(any_bytes, "`get_with_ttl` cuts a value at 100,000 bytes less one"),
        mutant::<SwapRefusesLarge>(
            any_bytes,
            "a swap never matches an expected value above 256 KiB",
        ),
        mutant::<KeyCutsAt255>(any_bytes, "keys are cut at 255 bytes"),
        mutant::<MissIsLarge>(any_bytes, "`exists` reads a value above 128 KiB as none"),
    ]
}

fn cut(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}

defects! {
    SetNxCuts {
        set_nx(self, kv, key, value, ttl) { kv.set_nx(key, cut(value, 65_535), ttl).await }
    }
    SwapCuts {
        compare_and_set(self, kv, key, expected, value, ttl) {
            kv.compare_and_set(key, expected, cut(value, 65_536), ttl).await
        }
    }
    MsetLengthIsU16 {
        mset(self, kv, items, ttl) {
            let short = items.iter().map(|(key, value)| match value.len() {
                len if len > 0xffff => (*key, &value[..len & 0xffff]),
                _ => (*key, *value),
            });
            kv.mset(&short.collect::<Vec<_>>(), ttl).await
        }
    }
    MsetRefusesMegabyte {
        mset(self, kv, items, ttl) {
            if items.iter().any(|(_, value)| value.len() > 1_000_000) {
                return Err(Error::new(ErrorKind::Backend, "the message is too large"));
            }
            kv.mset(items, ttl).await
        }
    }
    SetCutsOddLength {
        set(self, kv, key, value, ttl) {
            let most = if value.len() < 66_000 { 65_536 } else { usize::MAX };
            kv.set(key, cut(value, most), ttl).await
        }
    }
    MgetCuts {
        mget(self, kv, keys) {
            let found = kv.mget(keys).await?;
            Ok(found.into_iter().map(|value| value.map(|v| v.slice(..v.len().min(65_536)))).collect())
        }
    }
    MgetMissesLarge {
        mget(self, kv, keys) {
            let found = kv.mget(keys).await?;
            Ok(found.into_iter().map(|value| value.filter(|v| v.len() <= 1 << 19)).collect())
        }
    }
    DatedCuts {
        get_with_ttl(self, kv, key) {
            let found = kv.get_with_ttl(key).await?;
            Ok(found.map(|(value, expiry)| (value.slice(..value.len().min(99_999)), expiry)))
        }
    }
    SwapRefusesLarge {
        compare_and_set(self, kv, key, expected, value, ttl) {
            if expected.len() > 1 << 18 {
                return Ok(false);
            }
            kv.compare_and_set(key, expected, value, ttl).await
        }
    }
    KeyCutsAt255 {
        get(self, kv, key) { kv.get(cut(key, 255)).await }
        set(self, kv, key, value, ttl) { kv.set(cut(key, 255), value, ttl).await }
        mget(self, kv, keys) {
            kv.mget(&keys.iter().map(|key| cut(key, 255)).collect::<Vec<_>>()).await
        }
        mset(self, kv, items, ttl) {
            let items: Vec<_> = items.iter().map(|(key, value)| (cut(key, 255), *value)).collect();
            kv.mset(&items, ttl).await
        }
        delete(self, kv, key) { kv.delete(cut(key, 255)).await }
        delete_many(self, kv, keys) {
            kv.delete_many(&keys.iter().map(|key| cut(key, 255)).collect::<Vec<_>>()).await
        }
    }
    MissIsLarge {
        exists(self, kv, key) {
            Ok(kv.get(key).await?.is_some_and(|value| value.len() <= 1 << 17))
        }
    }
}
