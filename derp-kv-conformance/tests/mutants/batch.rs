mod racing;
mod sizes;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;

use super::broken::{Mutant, mutant};
use super::defect::{Ttl, defects, gap};

pub(super) fn mutants() -> Vec<Mutant> {
    let order = "batch::mget_keeps_order_and_repeats";
    let mut mutants = vec![
        mutant::<DropsRepeats>(order, "`mget` answers a repeated key once"),
        mutant::<Sorts>(order, "`mget` answers in the order of the keys"),
        mutant::<DropsMisses>(order, "`mget` leaves missing keys out"),
        mutant::<FirstWins>("batch::mset_last_wins", "of two equal keys of `mset` the first stays"),
        mutant::<TtlAfterwards>(
            "batch::mset_sets_ttl_with_value",
            "`mset` writes all values first and their TTLs then",
        ),
        mutant::<TtlOfFirstChunk>(
            "batch::mset_sets_ttl_with_value",
            "`mset` forgets the TTL after 500 keys",
        ),
        mutant::<CountsRepeats>(
            "batch::delete_many_counts_distinct",
            "`delete_many` counts a repeated key twice",
        ),
        mutant::<CountsAsked>(
            "batch::delete_many_counts_distinct",
            "`delete_many` counts the keys asked for",
        ),
        mutant::<EmptyIsRefused>("batch::empty_does_nothing", "an empty batch is refused"),
        mutant::<EmptyIsAll>("batch::empty_does_nothing", "an empty `delete_many` deletes all"),
    ];
    mutants.extend(racing::mutants());
    mutants.extend(sizes::mutants());
    mutants
}

const CHUNK: usize = 500;

defects! {
    DropsRepeats {
        mget(self, kv, keys) {
            let mut distinct = keys.to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            if distinct.len() == keys.len() { kv.mget(keys).await } else { kv.mget(&distinct).await }
        }
    }
    Sorts {
        mget(self, kv, keys) {
            let mut sorted = keys.to_vec();
            sorted.sort_unstable();
            kv.mget(&sorted).await
        }
    }
    DropsMisses {
        mget(self, kv, keys) {
            let found = kv.mget(keys).await?;
            Ok(found.into_iter().filter(Option::is_some).collect())
        }
    }
    FirstWins {
        mset(self, kv, items, ttl) {
            let first: BTreeMap<_, _> = items.iter().rev().copied().collect();
            kv.mset(&first.into_iter().collect::<Vec<_>>(), ttl).await
        }
    }
    TtlAfterwards {
        mset(self, kv, items, ttl) {
            kv.mset(items, None).await?;
            let Some(ttl) = ttl else { return Ok(()) };
            for _ in 0..5 {
                gap().await;
            }
            for (key, _) in items {
                kv.expire(key, ttl).await?;
            }
            Ok(())
        }
        ttl(self, kv, key) {
            // A server is not as near as this store.
            tokio::time::sleep(Duration::from_micros(50)).await;
            kv.ttl(key).await
        }
    }
    TtlOfFirstChunk {
        mset(self, kv, items, ttl) {
            let (first, more) = items.split_at(items.len().min(CHUNK));
            kv.mset(first, ttl).await?;
            kv.mset(more, None).await
        }
    }
    CountsRepeats {
        delete_many(self, kv, keys) {
            let there = kv.mget(keys).await?.into_iter().flatten().count();
            kv.delete_many(keys).await?;
            Ok(there as u64)
        }
    }
    CountsAsked {
        delete_many(self, kv, keys) {
            kv.delete_many(keys).await?;
            Ok(keys.len() as u64)
        }
    }
    EmptyIsRefused {
        mget(self, kv, keys) {
            if keys.is_empty() {
                return Err(Error::new(ErrorKind::Backend, "wrong number of arguments"));
            }
            kv.mget(keys).await
        }
    }
    EmptyIsAll {
        delete_many(self, kv, keys) {
            use futures_util::TryStreamExt;
            if !keys.is_empty() {
                return kv.delete_many(keys).await;
            }
            let all: Vec<Bytes> = kv.scan(b"").try_collect().await?;
            for key in all {
                kv.delete(&key).await?;
            }
            Ok(0)
        }
    }
}
