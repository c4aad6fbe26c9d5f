mod large;

use derp_kv_core::{KvStore, Result};
use derp_kv_memory::MemoryStore;

use super::broken::{Mutant, mutant};
use super::defect::{Ttl, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    let every_byte = "conditional::compares_every_byte";
    let mut mutants = vec![
        mutant::<RefreshesTtl>(
            "conditional::set_nx_only_when_absent",
            "`set_nx` gives a present key a new TTL",
        ),
        mutant::<TrueForSameValue>(
            "conditional::set_nx_only_when_absent",
            "`set_nx` is true where the value is there already",
        ),
        mutant::<DeletesByPrefix>(every_byte, "`compare_and_delete` compares a prefix"),
        mutant::<SwapsByCase>(every_byte, "`compare_and_set` compares without regard to case"),
        mutant::<ComparesText>(every_byte, "what is compared is mangled as UTF-8"),
        mutant::<AbsentIsEmpty>(
            "conditional::absent_never_matches",
            "`compare_and_set` takes an absent key for the empty value",
        ),
        mutant::<DeletesNothing>(
            "conditional::absent_never_matches",
            "`compare_and_delete` of an absent key is true",
        ),
        mutant::<SwapKeepsTtl>("conditional::swap_sets_expiry", "a swap keeps the old TTL"),
        mutant::<RefusalSetsTtl>("conditional::swap_sets_expiry", "a refused swap sets the TTL"),
    ];
    mutants.extend(large::mutants());
    mutants
}

defects! {
    RefreshesTtl {
        set_nx(self, kv, key, value, ttl) {
            let taken = kv.set_nx(key, value, ttl).await?;
            if let (false, Some(ttl)) = (taken, ttl) {
                kv.expire(key, ttl).await?;
            }
            Ok(taken)
        }
    }
    TrueForSameValue {
        set_nx(self, kv, key, value, ttl) {
            Ok(kv.set_nx(key, value, ttl).await? || kv.get(key).await?.as_deref() == Some(value))
        }
    }
    DeletesByPrefix {
        compare_and_delete(self, kv, key, expected) {
            match kv.get(key).await? {
                Some(found) if found.starts_with(expected) => {
                    kv.compare_and_delete(key, &found).await
                }
                _ => Ok(false),
            }
        }
    }
    SwapsByCase {
        compare_and_set(self, kv, key, expected, value, ttl) {
            match kv.get(key).await? {
                Some(found) if found.eq_ignore_ascii_case(expected) => {
                    kv.compare_and_set(key, &found, value, ttl).await
                }
                _ => Ok(false),
            }
        }
    }
    ComparesText {
        compare_and_delete(self, kv, key, expected) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            match kv.get(key).await? {
                Some(found) if text(&found) == text(expected) => {
                    kv.compare_and_delete(key, &found).await
                }
                _ => Ok(false),
            }
        }
    }
    AbsentIsEmpty {
        compare_and_set(self, kv, key, expected, value, ttl) {
            if expected.is_empty() && kv.set_nx(key, value, ttl).await? {
                return Ok(true);
            }
            kv.compare_and_set(key, expected, value, ttl).await
        }
    }
    DeletesNothing {
        compare_and_delete(self, kv, key, expected) {
            Ok(kv.compare_and_delete(key, expected).await? || !kv.exists(key).await?)
        }
    }
    SwapKeepsTtl {
        compare_and_set(self, kv, key, expected, value, _ttl) {
            let before = kv.ttl(key).await?.and_then(|expiry| expiry.remaining());
            kv.compare_and_set(key, expected, value, before).await
        }
    }
    RefusalSetsTtl {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let swapped = kv.compare_and_set(key, expected, value, ttl).await?;
            if let (false, Some(ttl)) = (swapped, ttl) {
                kv.expire(key, ttl).await?;
            }
            Ok(swapped)
        }
    }
}
