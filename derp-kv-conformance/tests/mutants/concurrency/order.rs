//! Calls that are two, with nothing or little between them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;

use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Defect, Ttl, defect, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    let order = "concurrency::any_two_calls_have_an_order";
    vec![
        mutant::<ExpireWritesBack>(order, "`expire` reads the value and writes it back"),
        mutant::<ExpireWritesBackLater>(order, "`expire` writes the value back after a while"),
        mutant::<ExpireLooksFirst>(order, "`expire` answers what it found before it wrote"),
        mutant::<ExpireSwaps>(
            order,
            "`expire` swaps the value for itself, and gives up on another",
        ),
        mutant::<ExpireLocksItsProcess>(
            order,
            "`expire` reads and writes back under a lock of its own process",
        ),
        mutant::<IncrRestoresTtl>(order, "`incr` gives the key the TTL back that it had before"),
        mutant::<IncrReadsTtlLater>(
            order,
            "`incr` reads the expiry that it reports in a second call",
        ),
        mutant::<IncrCreatesPlainly>(order, "`incr` writes an absent counter without a condition"),
        mutant::<IncrDatesLater>(order, "`incr` creates a counter first and dates it then"),
        mutant::<SetDeletesFirst>(order, "`set` deletes the old value first"),
        mutant::<SetNxDatesLater>(order, "`set_nx` writes first and dates then"),
        mutant::<SwapDeletesFirst>(order, "a swap deletes the old value and adds the new one"),
        mutant::<MsetDeletesFirst>(order, "`mset` deletes its keys and writes them then"),
        mutant::<MsetDatesLater>(order, "`mset` writes first and dates then"),
        mutant::<MsetSkipsBusyKeys>(order, "`mset` leaves keys out that others are writing"),
        mutant::<DeleteManyCountsFirst>(order, "`delete_many` counts first and deletes then"),
        mutant::<DeleteManyLooksAtEach>(
            order,
            "`delete_many` looks at each key before it deletes it",
        ),
        mutant::<MgetLooksFirst>(order, "`mget` takes a key that goes away for an empty value"),
        mutant::<ReadsValueThenTtl>(order, "`get_with_ttl` reads the expiry in a second call"),
        mutant::<CacheFilledLate>(order, "`get` caches what it read before a write, behind it"),
    ]
}

/// Remembers what readers have read; writers forget it before they write.
#[derive(Clone, Debug, Default)]
struct CacheFilledLate(Arc<Mutex<HashMap<Vec<u8>, Bytes>>>);

impl CacheFilledLate {
    fn forget(&self, key: &[u8]) {
        self.0.lock().unwrap().remove(key);
    }
}

defect! { CacheFilledLate []
    get(self, kv, key) {
        let cached = self.0.lock().unwrap().get(key).cloned();
        if cached.is_some() {
            return Ok(cached);
        }
        let found = kv.get(key).await?;
        // The reply is on its way.
        tokio::task::yield_now().await;
        if let Some(value) = &found {
            self.0.lock().unwrap().insert(key.to_vec(), value.clone());
        }
        Ok(found)
    }
    set(self, kv, key, value, ttl) {
        kv.set(key, value, ttl).await?;
        self.forget(key);
        Ok(())
    }
    mset(self, kv, items, ttl) {
        kv.mset(items, ttl).await?;
        items.iter().for_each(|(key, _)| self.forget(key));
        Ok(())
    }
    incr(self, kv, key, by, ttl) {
        let counter = kv.incr(key, by, ttl).await;
        self.forget(key);
        counter
    }
    delete(self, kv, key) {
        let deleted = kv.delete(key).await;
        self.forget(key);
        deleted
    }
    delete_many(self, kv, keys) {
        let deleted = kv.delete_many(keys).await;
        keys.iter().for_each(|key| self.forget(key));
        deleted
    }
    set_nx(self, kv, key, value, ttl) {
        let taken = kv.set_nx(key, value, ttl).await;
        self.forget(key);
        taken
    }
    compare_and_set(self, kv, key, expected, value, ttl) {
        let swapped = kv.compare_and_set(key, expected, value, ttl).await;
        self.forget(key);
        swapped
    }
    compare_and_delete(self, kv, key, expected) {
        let deleted = kv.compare_and_delete(key, expected).await;
        self.forget(key);
        deleted
    }
}

/// The keys that are being written one by one.
#[derive(Clone, Debug, Default)]
struct MsetSkipsBusyKeys(Arc<Mutex<HashSet<Vec<u8>>>>);

defect! { MsetSkipsBusyKeys []
    incr(self, kv, key, by, ttl) {
        self.0.lock().unwrap().insert(key.to_vec());
        let counter = kv.incr(key, by, ttl).await;
        self.0.lock().unwrap().remove(key);
        counter
    }
    compare_and_set(self, kv, key, expected, value, ttl) {
        self.0.lock().unwrap().insert(key.to_vec());
        let swapped = kv.compare_and_set(key, expected, value, ttl).await;
        self.0.lock().unwrap().remove(key);
        swapped
    }
    mset(self, kv, items, ttl) {
        for (key, value) in items {
            let busy = self.0.lock().unwrap().contains(*key);
            if !busy {
                kv.set(key, value, ttl).await?;
            }
        }
        Ok(())
    }
}

/// A lock that another process's handle does not know.
#[derive(Clone, Debug, Default)]
struct ExpireLocksItsProcess(Arc<tokio::sync::Mutex<()>>);

#[async_trait::async_trait]
impl Defect for ExpireLocksItsProcess {
    async fn expire(&self, kv: &MemoryStore, key: &[u8], ttl: Duration) -> Result<bool> {
        let _alone = self.0.lock().await;
        let Some(value) = kv.get(key).await? else { return Ok(false) };
        kv.set(key, &value, Some(ttl)).await.map(|()| true)
    }

    async fn set(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        let _alone = self.0.lock().await;
        kv.set(key, value, ttl).await
    }

    async fn delete(&self, kv: &MemoryStore, key: &[u8]) -> Result<bool> {
        let _alone = self.0.lock().await;
        kv.delete(key).await
    }

    fn elsewhere(&self) -> Option<Arc<dyn Defect>> {
        Some(Arc::new(Self::default()))
    }
}

defects! {
    ExpireWritesBack {
        expire(self, kv, key, ttl) {
            let Some(value) = kv.get(key).await? else { return Ok(false) };
            kv.set(key, &value, Some(ttl)).await.map(|()| true)
        }
    }
    ExpireWritesBackLater {
        expire(self, kv, key, ttl) {
            let Some(value) = kv.get(key).await? else { return Ok(false) };
            tokio::task::yield_now().await;
            kv.set(key, &value, Some(ttl)).await.map(|()| true)
        }
    }
    ExpireLooksFirst {
        expire(self, kv, key, ttl) {
            let there = kv.exists(key).await?;
            kv.expire(key, ttl).await.map(|_| there)
        }
    }
    ExpireSwaps {
        expire(self, kv, key, ttl) {
            let Some(value) = kv.get(key).await? else { return Ok(false) };
            kv.compare_and_set(key, &value, &value, Some(ttl)).await
        }
    }
    IncrRestoresTtl {
        incr(self, kv, key, by, ttl) {
            let before = kv.ttl(key).await?;
            let counter = kv.incr(key, by, ttl).await?;
            if let Some(Expiry::In(left)) = before {
                kv.expire(key, left).await?;
            }
            Ok(counter)
        }
    }
    IncrReadsTtlLater {
        incr(self, kv, key, by, ttl) {
            let Counter { value, .. } = kv.incr(key, by, ttl).await?;
            let expiry = kv.ttl(key).await?.unwrap_or(Expiry::Never);
            Ok(Counter { value, expiry })
        }
    }
    IncrCreatesPlainly {
        incr(self, kv, key, by, ttl) {
            if kv.exists(key).await? {
                return kv.incr(key, by, ttl).await;
            }
            kv.set(key, by.to_string().as_bytes(), ttl).await?;
            Ok(Counter { value: by, expiry: ttl.map_or(Expiry::Never, Expiry::In) })
        }
    }
    IncrDatesLater {
        incr(self, kv, key, by, ttl) {
            let mut counter = kv.incr(key, by, None).await?;
            if let (true, Some(ttl)) = (counter.value == by, ttl) {
                kv.expire(key, ttl).await?;
                counter.expiry = Expiry::In(ttl);
            }
            Ok(counter)
        }
    }
    SetDeletesFirst {
        set(self, kv, key, value, ttl) {
            kv.delete(key).await?;
            kv.set(key, value, ttl).await
        }
    }
    SetNxDatesLater {
        set_nx(self, kv, key, value, ttl) {
            let taken = kv.set_nx(key, value, None).await?;
            if let (true, Some(ttl)) = (taken, ttl) {
                kv.expire(key, ttl).await?;
            }
            Ok(taken)
        }
    }
    SwapDeletesFirst {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let deleted = kv.compare_and_delete(key, expected).await?;
            if deleted {
                kv.set_nx(key, value, ttl).await?;
            }
            Ok(deleted)
        }
    }
    MsetDeletesFirst {
        mset(self, kv, items, ttl) {
            let keys: Vec<_> = items.iter().map(|(key, _)| *key).collect();
            kv.delete_many(&keys).await?;
            kv.mset(items, ttl).await
        }
    }
    MsetDatesLater {
        mset(self, kv, items, ttl) {
            kv.mset(items, None).await?;
            if let Some(ttl) = ttl {
                for (key, _) in items {
                    kv.expire(key, ttl).await?;
                }
            }
            Ok(())
        }
    }
    DeleteManyCountsFirst {
        delete_many(self, kv, keys) {
            let distinct: HashSet<_> = keys.iter().collect();
            let distinct: Vec<&[u8]> = distinct.into_iter().copied().collect();
            let there = kv.mget(&distinct).await?.into_iter().flatten().count();
            kv.delete_many(keys).await?;
            Ok(there as u64)
        }
    }
    DeleteManyLooksAtEach {
        delete_many(self, kv, keys) {
            let mut there = 0;
            for key in keys {
                there += u64::from(kv.exists(key).await?);
                kv.delete(key).await?;
            }
            Ok(there)
        }
    }
    MgetLooksFirst {
        mget(self, kv, keys) {
            let mut found = Vec::new();
            for key in keys {
                found.push(match kv.exists(key).await? {
                    true => Some(kv.get(key).await?.unwrap_or_default()),
                    false => None,
                });
            }
            Ok(found)
        }
    }
    ReadsValueThenTtl {
        get_with_ttl(self, kv, key) {
            let Some(value) = kv.get(key).await? else { return Ok(None) };
            Ok(kv.ttl(key).await?.map(|expiry| (value, expiry)))
        }
    }
}
