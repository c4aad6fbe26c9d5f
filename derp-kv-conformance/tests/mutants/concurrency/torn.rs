//! Large values that are written, or read, in parts.

use bytes::Bytes;
use derp_kv_core::{Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;

use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Ttl, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    let torn = "concurrency::values_are_never_torn";
    vec![
        mutant::<WritesInPlace>(torn, "a large value is written over the old one, half by half"),
        mutant::<Appends>(torn, "a large value is written up to 64 KB, and appended to then"),
        mutant::<TwoRows>(torn, "what is beyond 64 KB is in a row of its own"),
        mutant::<DatesLargeLater>(torn, "a large value gets its TTL in a second call"),
        mutant::<SwapsInTwo>(torn, "a swap of large values empties the key first"),
        mutant::<MsetInPlace>(torn, "`mset` writes large values half by half"),
        mutant::<ReadsLengthFirst>(torn, "`get` reads the length first and the bytes then"),
        mutant::<MgetReadsInPieces>(torn, "`mget` reads large values in two pieces"),
        mutant::<LargeReadsTtlLater>(
            torn,
            "`get_with_ttl` reads the TTL of large values in a second call",
        ),
    ]
}

const LARGE: usize = 60_000;

/// The first bytes of the new value and the last of the old one.
fn half(old: &[u8], new: &[u8]) -> Vec<u8> {
    let middle = new.len() / 2;
    [&new[..middle], old.get(middle..).unwrap_or_default()].concat()
}

/// Where what is beyond 64 KB is.
fn rest_of(key: &[u8]) -> Vec<u8> {
    [key, b"\0rest"].concat()
}

async fn joined(kv: &MemoryStore, key: &[u8], first: Bytes) -> Result<Bytes> {
    if first.len() < 65_535 {
        return Ok(first);
    }
    let rest = kv.get(&rest_of(key)).await?.unwrap_or_default();
    Ok([&first[..], &rest[..]].concat().into())
}

defects! {
    WritesInPlace {
        set(self, kv, key, value, ttl) {
            if value.len() > LARGE && let Some(old) = kv.get(key).await? {
                kv.set(key, &half(&old, value), ttl).await?;
            }
            kv.set(key, value, ttl).await
        }
    }
    Appends {
        set(self, kv, key, value, ttl) {
            if value.len() > LARGE {
                kv.set(key, &value[..LARGE], ttl).await?;
            }
            kv.set(key, value, ttl).await
        }
    }
    TwoRows {
        set(self, kv, key, value, ttl) {
            if value.len() > 65_535 {
                kv.set(&rest_of(key), &value[65_535..], ttl).await?;
                return kv.set(key, &value[..65_535], ttl).await;
            }
            kv.set(key, value, ttl).await?;
            kv.delete(&rest_of(key)).await.map(drop)
        }
        mset(self, kv, items, ttl) {
            for (key, value) in items {
                self.set(kv, key, value, ttl).await?;
            }
            Ok(())
        }
        compare_and_set(self, kv, key, expected, value, ttl) {
            let equal = self.get(kv, key).await?.as_deref() == Some(expected);
            if equal {
                self.set(kv, key, value, ttl).await?;
            }
            Ok(equal)
        }
        get(self, kv, key) {
            match kv.get(key).await? {
                Some(first) => Ok(Some(joined(kv, key, first).await?)),
                None => Ok(None),
            }
        }
        mget(self, kv, keys) {
            let mut found = Vec::new();
            for key in keys {
                found.push(self.get(kv, key).await?);
            }
            Ok(found)
        }
        get_with_ttl(self, kv, key) {
            match kv.get_with_ttl(key).await? {
                Some((first, expiry)) => Ok(Some((joined(kv, key, first).await?, expiry))),
                None => Ok(None),
            }
        }
    }
    DatesLargeLater {
        set(self, kv, key, value, ttl) {
            if value.len() < LARGE {
                return kv.set(key, value, ttl).await;
            }
            kv.set(key, value, None).await?;
            if let Some(ttl) = ttl {
                kv.expire(key, ttl).await?;
            }
            Ok(())
        }
    }
    SwapsInTwo {
        compare_and_set(self, kv, key, expected, value, ttl) {
            if value.len() < LARGE {
                return kv.compare_and_set(key, expected, value, ttl).await;
            }
            Ok(kv.compare_and_set(key, expected, b"", ttl).await?
                && kv.compare_and_set(key, b"", value, ttl).await?)
        }
    }
    MsetInPlace {
        mset(self, kv, items, ttl) {
            for (key, value) in items {
                if value.len() > LARGE && let Some(old) = kv.get(key).await? {
                    kv.set(key, &half(&old, value), ttl).await?;
                }
            }
            kv.mset(items, ttl).await
        }
    }
    ReadsLengthFirst {
        get(self, kv, key) {
            let len = kv.get(key).await?.map_or(0, |value| value.len());
            Ok(kv.get(key).await?.map(|value| value.slice(..len.min(value.len()))))
        }
    }
    MgetReadsInPieces {
        mget(self, kv, keys) {
            let (first, then) = (kv.mget(keys).await?, kv.mget(keys).await?);
            let piece = |(first, then): (Option<Bytes>, Option<Bytes>)| match (first, then) {
                (Some(first), Some(then)) if first.len() > LARGE => Some(half(&then, &first).into()),
                (first, _) => first,
            };
            Ok(first.into_iter().zip(then).map(piece).collect())
        }
    }
    LargeReadsTtlLater {
        get_with_ttl(self, kv, key) {
            match kv.get_with_ttl(key).await? {
                Some((value, _)) if value.len() > LARGE => {
                    let expiry = kv.ttl(key).await?.unwrap_or(Expiry::Never);
                    Ok(Some((value, expiry)))
                }
                found => Ok(found),
            }
        }
    }
}
