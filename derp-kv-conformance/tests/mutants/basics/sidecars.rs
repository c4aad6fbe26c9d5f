//! Stores that keep something of a key under a name beside it.

use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use std::time::Duration;

use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Ttl, defects};

const LAW: &str = "basics::keys_are_told_apart";

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<ExpireatDeleted>(LAW, "`delete` takes `key.expireat` along"),
        mutant::<DeadlineBehind>(
            LAW,
            "`expire` keeps the deadline in a hidden key with a bar before `key`",
        ),
        mutant::<VersionNul>(LAW, "a swap counts a version up in `key` NUL `ver`, and hides it"),
        mutant::<CountersBeside>(LAW, "`incr` counts in `cnt::key` as well"),
        mutant::<TypeBeside>(LAW, "`set` writes the type of its value to `type/key`"),
        mutant::<ExpiredByMark>(LAW, "a key is absent while there is a `key__exp`"),
        mutant::<ReadsExpiry>(LAW, "`ttl` prefers what stands in `__ttl__:key`"),
        mutant::<HidesMeta>(LAW, "a scan hides the keys that end in `-meta`"),
        mutant::<MetaTakesAlong>(LAW, "`delete_many` of `key#data` deletes the key, too"),
    ]
}

fn beside(before: &[u8], key: &[u8], behind: &[u8]) -> Vec<u8> {
    [before, key, behind].concat()
}

fn without(
    kv: &MemoryStore,
    prefix: &[u8],
    hidden: impl Fn(&Bytes) -> bool + Send + 'static,
) -> BoxStream<'static, Result<Bytes>> {
    kv.scan(prefix).try_filter(move |key| std::future::ready(!hidden(key))).boxed()
}

defects! {
    ExpireatDeleted {
        delete(self, kv, key) {
            kv.delete(&beside(b"", key, b".expireat")).await?;
            kv.delete(key).await
        }
    }
    DeadlineBehind {
        expire(self, kv, key, ttl) {
            let there = kv.expire(key, ttl).await?;
            if there {
                kv.set(&beside(b"deadline|", key, b""), b"1", Some(ttl)).await?;
            }
            Ok(there)
        }
        scan(self, kv, prefix) { without(kv, prefix, |key| key.starts_with(b"deadline|")) }
    }
    VersionNul {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let swapped = kv.compare_and_set(key, expected, value, ttl).await?;
            if swapped {
                kv.set(&beside(b"", key, b"\0ver"), b"1", None).await?;
            }
            Ok(swapped)
        }
        scan(self, kv, prefix) { without(kv, prefix, |key| key.ends_with(b"\0ver")) }
    }
    CountersBeside {
        incr(self, kv, key, by, ttl) {
            kv.set(&beside(b"cnt::", key, b""), b"1", ttl).await?;
            kv.incr(key, by, ttl).await
        }
        delete_many(self, kv, keys) {
            for key in keys {
                kv.delete(&beside(b"cnt::", key, b"")).await?;
            }
            kv.delete_many(keys).await
        }
        scan(self, kv, prefix) { without(kv, prefix, |key| key.starts_with(b"cnt::")) }
    }
    TypeBeside {
        set(self, kv, key, value, ttl) {
            kv.set(&beside(b"type/", key, b""), b"bytes", ttl).await?;
            kv.set(key, value, ttl).await
        }
        scan(self, kv, prefix) { without(kv, prefix, |key| key.starts_with(b"type/")) }
    }
    ExpiredByMark {
        get_with_ttl(self, kv, key) {
            if kv.exists(&beside(b"", key, b"__exp")).await? {
                return Ok(None);
            }
            kv.get_with_ttl(key).await
        }
    }
    ReadsExpiry {
        ttl(self, kv, key) {
            let Some(_) = kv.get(&beside(b"__ttl__:", key, b"")).await? else {
                return kv.ttl(key).await;
            };
            Ok(Some(Expiry::In(Duration::from_secs(1))))
        }
    }
    HidesMeta {
        scan(self, kv, prefix) { without(kv, prefix, |key| key.ends_with(b"-meta")) }
    }
    MetaTakesAlong {
        delete_many(self, kv, keys) {
            for key in keys {
                if let Some(own) = key.strip_suffix(b"#data") {
                    kv.delete(own).await?;
                }
            }
            kv.delete_many(keys).await
        }
    }
}
