//! Batches that are too large for what is done with them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, KvStore, Result};
use derp_kv_memory::MemoryStore;

use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Ttl, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    let any_size = "batch::any_size";
    vec![
        mutant::<MgetStopsAt4096>(any_size, "`mget` answers `None` behind 4,096 keys"),
        mutant::<MgetStopsAt10000>(any_size, "`mget` answers its first 10,000 keys only"),
        mutant::<MgetRefusesLarge>(any_size, "`mget` fails above 32,767 keys"),
        mutant::<MgetPlaceIsU16>(any_size, "`mget` finds the places of its answers with 16 bits"),
        mutant::<MgetChunksRace>(any_size, "`mget` answers chunks in the order in which they come"),
        mutant::<MgetShiftsAtMiss>(any_size, "`mget` fills a chunk's misses up at its end"),
        mutant::<MgetEmptyChunk>(
            any_size,
            "`mget` of a multiple of 1,000 keys sends an empty chunk",
        ),
        mutant::<MgetLimitsReply>(any_size, "`mget` cuts its reply off at 1 MiB"),
        mutant::<MgetRepeatsLargeOnce>(any_size, "`mget` answers a repeated large value once"),
        mutant::<MsetStopsAt16384>(any_size, "`mset` writes its first 16,384 keys only"),
        mutant::<MsetRefusesLarge>(any_size, "`mset` fails above 65,535 keys"),
        mutant::<MsetRefusesParameters>(
            any_size,
            "`mset` fails above 65,535 keys and values together",
        ),
        mutant::<MsetLosesRest>(any_size, "`mset` loses what does not fill a chunk of 500"),
        mutant::<MsetChunksRace>(
            any_size,
            "of two equal keys of an `mset`, that of the first chunk stays",
        ),
        mutant::<MsetDatesFirst10000>(any_size, "`mset` dates its first 10,000 keys only"),
        mutant::<MsetDatesLastChunk>(any_size, "`mset` dates its last chunk of 5,000 only"),
        mutant::<MsetLimitsBytes>(any_size, "`mset` drops what is beyond 4 MB"),
        mutant::<MsetCutsValues>(any_size, "`mset` of several values cuts each at 65,535 bytes"),
        mutant::<DeleteStopsAt8192>(any_size, "`delete_many` deletes its first 8,192 keys only"),
        mutant::<DeleteRefusesMisses>(
            any_size,
            "`delete_many` fails above 65,535 keys, of which most are missing",
        ),
        mutant::<CountIsU8>(any_size, "`delete_many` counts with 8 bits"),
        mutant::<CountIsU16>(any_size, "`delete_many` counts with 16 bits"),
        mutant::<CountsLastChunk>(any_size, "`delete_many` counts its last chunk only"),
        mutant::<CountsInChunks>(any_size, "`delete_many` counts a key again in another chunk"),
        mutant::<DeleteRefusesLarge>(any_size, "`delete_many` fails above 32,767 keys"),
    ]
}

fn too_many() -> Error {
    Error::new(ErrorKind::Backend, "too many parameters")
}

/// The first `most` keys are answered, and the others missed.
async fn first(kv: &MemoryStore, keys: &[&[u8]], most: usize) -> Result<Vec<Option<Bytes>>> {
    let mut found = kv.mget(&keys[..keys.len().min(most)]).await?;
    found.resize(keys.len(), None);
    Ok(found)
}

defects! {
    MgetStopsAt4096 {
        mget(self, kv, keys) { first(kv, keys, 4_096).await }
    }
    MgetStopsAt10000 {
        mget(self, kv, keys) { kv.mget(&keys[..keys.len().min(10_000)]).await }
    }
    MgetRefusesLarge {
        mget(self, kv, keys) {
            if keys.len() > 32_767 { Err(too_many()) } else { kv.mget(keys).await }
        }
    }
    MgetPlaceIsU16 {
        mget(self, kv, keys) {
            let found = kv.mget(keys).await?;
            let mut answers = vec![None; found.len()];
            for (place, value) in found.into_iter().enumerate() {
                answers[place & 0xffff] = value;
            }
            Ok(answers)
        }
    }
    MgetChunksRace {
        mget(self, kv, keys) {
            let mut chunks = Vec::new();
            for chunk in keys.chunks(8_192) {
                chunks.push(kv.mget(chunk).await?);
            }
            // The last one is the shortest, and comes first.
            if chunks.len() > 1 {
                chunks.rotate_right(1);
            }
            Ok(chunks.concat())
        }
    }
    MgetShiftsAtMiss {
        mget(self, kv, keys) {
            let mut found = Vec::new();
            for chunk in keys.chunks(5_000) {
                let mut rows = kv.mget(chunk).await?;
                if keys.len() > 5_000 {
                    rows.retain(Option::is_some);
                    rows.resize(chunk.len(), None);
                }
                found.extend(rows);
            }
            Ok(found)
        }
    }
    MgetEmptyChunk {
        mget(self, kv, keys) {
            if !keys.is_empty() && keys.len().is_multiple_of(1_000) {
                return Err(Error::new(ErrorKind::Backend, "wrong number of arguments"));
            }
            kv.mget(keys).await
        }
    }
    MgetLimitsReply {
        mget(self, kv, keys) {
            let mut left = 1_usize << 20;
            let mut found = kv.mget(keys).await?;
            if keys.len() > 8 {
                for value in &mut found {
                    left = left.saturating_sub(value.as_ref().map_or(0, |value| value.len()));
                    if left == 0 {
                        *value = None;
                    }
                }
            }
            Ok(found)
        }
    }
    MgetRepeatsLargeOnce {
        mget(self, kv, keys) {
            let mut found = kv.mget(keys).await?;
            let mut seen = BTreeSet::new();
            for (key, value) in keys.iter().zip(&mut found) {
                let large = value.as_ref().is_some_and(|value| value.len() > 65_536);
                if large && !seen.insert(*key) {
                    *value = None;
                }
            }
            Ok(found)
        }
    }
    MsetStopsAt16384 {
        mset(self, kv, items, ttl) { kv.mset(&items[..items.len().min(16_384)], ttl).await }
    }
    MsetRefusesLarge {
        mset(self, kv, items, ttl) {
            if items.len() > 65_535 { Err(too_many()) } else { kv.mset(items, ttl).await }
        }
    }
    MsetRefusesParameters {
        mset(self, kv, items, ttl) {
            if items.len() * 2 > 65_535 { Err(too_many()) } else { kv.mset(items, ttl).await }
        }
    }
    MsetLosesRest {
        mset(self, kv, items, ttl) {
            let whole = if items.len() < 5_000 { items.len() } else { items.len() / 500 * 500 };
            kv.mset(&items[..whole], ttl).await
        }
    }
    MsetChunksRace {
        mset(self, kv, items, ttl) {
            for chunk in items.chunks(4_096).rev() {
                kv.mset(chunk, ttl).await?;
            }
            Ok(())
        }
    }
    MsetDatesFirst10000 {
        mset(self, kv, items, ttl) {
            let (first, more) = items.split_at(items.len().min(10_000));
            kv.mset(first, ttl).await?;
            kv.mset(more, None).await
        }
    }
    MsetDatesLastChunk {
        mset(self, kv, items, ttl) {
            let (first, last) = items.split_at(items.len().saturating_sub(5_000));
            kv.mset(first, None).await?;
            kv.mset(last, ttl).await
        }
    }
    MsetLimitsBytes {
        mset(self, kv, items, ttl) {
            let mut bytes = 0;
            let most = items.iter().take_while(|(_, value)| {
                bytes += value.len();
                bytes < 4_000_000
            });
            let most: Vec<_> = most.copied().collect();
            kv.mset(&most, ttl).await
        }
    }
    MsetCutsValues {
        mset(self, kv, items, ttl) {
            let cut = |(key, value): &(&'_ [u8], &'_ [u8])| (key.to_vec(), value[..value.len().min(65_535)].to_vec());
            let cut: BTreeMap<_, _> = items.iter().map(cut).collect();
            let cut: Vec<_> = cut.iter().map(|(key, value)| (&key[..], &value[..])).collect();
            kv.mset(&cut, ttl).await
        }
    }
    DeleteStopsAt8192 {
        delete_many(self, kv, keys) {
            kv.delete_many(&keys[..keys.len().min(8_192)]).await
        }
    }
    CountIsU8 {
        delete_many(self, kv, keys) { Ok(kv.delete_many(keys).await? & 0xff) }
    }
    CountIsU16 {
        delete_many(self, kv, keys) { Ok(kv.delete_many(keys).await? & 0xffff) }
    }
    CountsLastChunk {
        delete_many(self, kv, keys) {
            let mut count = 0;
            for chunk in keys.chunks(5_000) {
                count = kv.delete_many(chunk).await?;
            }
            Ok(count)
        }
    }
    CountsInChunks {
        delete_many(self, kv, keys) {
            let mut count = 0;
            for chunk in keys.chunks(5_000) {
                let chunk: BTreeSet<_> = chunk.iter().copied().collect();
                let chunk: Vec<_> = chunk.into_iter().collect();
                count += kv.mget(&chunk).await?.into_iter().flatten().count() as u64;
            }
            kv.delete_many(keys).await?;
            Ok(count)
        }
    }
    DeleteRefusesMisses {
        delete_many(self, kv, keys) {
            if keys.len() > 65_535 { Err(too_many()) } else { kv.delete_many(keys).await }
        }
    }
    DeleteRefusesLarge {
        delete_many(self, kv, keys) {
            if keys.len() > 32_767 { Err(too_many()) } else { kv.delete_many(keys).await }
        }
    }
}
