//! Comparisons of large values by a part of them.

use derp_kv_core::{KvStore, Result};
use derp_kv_memory::MemoryStore;

use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Ttl, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    let every_byte = "conditional::compares_every_byte";
    vec![
        mutant::<SwapsByFirst64K>(every_byte, "`compare_and_set` compares the first 64 KiB"),
        mutant::<SwapsByEnds>(every_byte, "`compare_and_set` compares length, start and end"),
        mutant::<SwapsByLengthOfLarge>(
            every_byte,
            "large values of one length are taken for equal",
        ),
        mutant::<SwapsBySamples>(
            every_byte,
            "`compare_and_set` compares each 16th byte of large values",
        ),
        mutant::<DeletesByFirst8K>(
            every_byte,
            "`compare_and_delete` compares the first 8,191 bytes",
        ),
        mutant::<DeletesByHashOfStart>(
            every_byte,
            "`compare_and_delete` compares a digest of 4,096 bytes",
        ),
        mutant::<DeletesByEnd>(every_byte, "`compare_and_delete` compares the last 32 KiB"),
        mutant::<NeverDeletesLarge>(
            every_byte,
            "`compare_and_delete` matches nothing above 64 KiB",
        ),
    ]
}

const LARGE: usize = 1 << 12;

/// Whether large values are taken for equal; others are compared as they are.
fn alike(found: &[u8], expected: &[u8], large: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    if found.len() < LARGE || expected.len() < LARGE {
        return found == expected;
    }
    large(found, expected)
}

async fn swap(
    kv: &MemoryStore,
    key: &[u8],
    new: (&[u8], &[u8], Ttl),
    large: fn(&[u8], &[u8]) -> bool,
) -> Result<bool> {
    let (expected, value, ttl) = new;
    match kv.get(key).await? {
        Some(found) if alike(&found, expected, large) => {
            kv.compare_and_set(key, &found, value, ttl).await
        }
        _ => Ok(false),
    }
}

async fn delete(
    kv: &MemoryStore,
    key: &[u8],
    expected: &[u8],
    large: fn(&[u8], &[u8]) -> bool,
) -> Result<bool> {
    match kv.get(key).await? {
        Some(found) if alike(&found, expected, large) => kv.compare_and_delete(key, &found).await,
        _ => Ok(false),
    }
}

fn start(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}

fn end(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[bytes.len().saturating_sub(most)..]
}

defects! {
    SwapsByFirst64K {
        compare_and_set(self, kv, key, expected, value, ttl) {
            swap(kv, key, (expected, value, ttl), |a, b| {
                a.len() == b.len() && start(a, 1 << 16) == start(b, 1 << 16)
            })
            .await
        }
    }
    SwapsByEnds {
        compare_and_set(self, kv, key, expected, value, ttl) {
            swap(kv, key, (expected, value, ttl), |a, b| {
                a.len() == b.len() && start(a, 256) == start(b, 256) && end(a, 256) == end(b, 256)
            })
            .await
        }
    }
    SwapsByLengthOfLarge {
        compare_and_set(self, kv, key, expected, value, ttl) {
            swap(kv, key, (expected, value, ttl), |a, b| a.len() == b.len()).await
        }
    }
    SwapsBySamples {
        compare_and_set(self, kv, key, expected, value, ttl) {
            swap(kv, key, (expected, value, ttl), |a, b| {
                a.len() == b.len() && a.iter().step_by(16).eq(b.iter().step_by(16))
            })
            .await
        }
    }
    DeletesByFirst8K {
        compare_and_delete(self, kv, key, expected) {
            delete(kv, key, expected, |a, b| start(a, 8_191) == start(b, 8_191)).await
        }
    }
    DeletesByHashOfStart {
        compare_and_delete(self, kv, key, expected) {
            delete(kv, key, expected, |a, b| {
                use std::hash::{BuildHasher, RandomState};
                let state = RandomState::new();
                a.len() == b.len()
                    && state.hash_one(start(a, LARGE)) == state.hash_one(start(b, LARGE))
            })
            .await
        }
    }
    DeletesByEnd {
        compare_and_delete(self, kv, key, expected) {
            delete(kv, key, expected, |a, b| end(a, 1 << 15) == end(b, 1 << 15)).await
        }
    }
    NeverDeletesLarge {
        compare_and_delete(self, kv, key, expected) {
            Ok(expected.len() <= 1 << 16 && kv.compare_and_delete(key, expected).await?)
        }
    }
}
