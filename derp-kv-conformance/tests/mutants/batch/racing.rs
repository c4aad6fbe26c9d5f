//! Batches that meet others of the same keys.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use derp_kv_core::{Counter, Error, ErrorKind, KvStore, Result};
use derp_kv_memory::MemoryStore;
use tokio::sync::OwnedMutexGuard;

use crate::mutants::broken::{Mutant, mutant, timed};
use crate::mutants::defect::{Ttl, defect, gap};

pub(super) fn mutants() -> Vec<Mutant> {
    let racing = "batch::racing_batches_all_succeed";
    vec![
        mutant::<Deadlocks>(racing, "a batch locks its keys in its order, and a deadlock fails it"),
        timed::<DeadlocksForEver>(
            racing,
            "a batch locks its keys in its order, and a deadlock has no end",
            Duration::from_secs(3),
        ),
        mutant::<MsetDeadlocksDelete>(
            racing,
            "`mset` locks its keys in their order, `delete_many` in its own",
        ),
        mutant::<IncrDeadlocks>(racing, "an increment that waits for a batch's key fails"),
        mutant::<LocksWithoutWaiting>(racing, "`mset` fails where a key of it is locked"),
        mutant::<CannotSerialize>(racing, "a batch fails where another was written meanwhile"),
        mutant::<SortsEachChunk>(
            racing,
            "a batch locks its keys in order within each chunk of 500, and holds all to its end",
        ),
        mutant::<OneAtATime>(racing, "a batch beside another one is refused"),
        mutant::<DeleteGivesUp>(racing, "`delete_many` beside an `mset` is refused as transient"),
        mutant::<MixesTtls>(racing, "`mset` writes all values and dates all keys then"),
    ]
}

type Row = Arc<tokio::sync::Mutex<()>>;

/// A lock for each row of a table.
#[derive(Clone, Debug, Default)]
struct Rows(Arc<Mutex<HashMap<Vec<u8>, Row>>>);

fn deadlock() -> Error {
    Error::new(ErrorKind::Backend, "deadlock detected")
}

impl Rows {
    fn row(&self, key: &[u8]) -> Row {
        self.0.lock().unwrap().entry(key.to_vec()).or_default().clone()
    }

    /// Locks the rows one after the other, as a statement does that goes over them.
    async fn lock(&self, keys: &[&[u8]], patience: Duration) -> Result<Vec<OwnedMutexGuard<()>>> {
        let mut locked = Vec::new();
        for key in keys {
            let lock = tokio::time::timeout(patience, self.row(key).lock_owned());
            locked.push(lock.await.map_err(|_| deadlock())?);
        }
        Ok(locked)
    }
}

fn distinct<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let mut seen = std::collections::HashSet::new();
    keys.filter(|key| seen.insert(*key)).collect()
}

fn keys_of<'a>(items: &[(&'a [u8], &'a [u8])]) -> Vec<&'a [u8]> {
    distinct(items.iter().map(|(key, _)| *key))
}

/// After which a wait for a row is taken for a deadlock.
const DETECTED: Duration = Duration::from_millis(30);

const FOR_EVER: Duration = Duration::from_secs(1_000);

#[derive(Clone, Debug, Default)]
struct SortsEachChunk(Rows);

impl SortsEachChunk {
    async fn lock(&self, mut keys: Vec<&[u8]>) -> Result<Vec<OwnedMutexGuard<()>>> {
        let mut locked = Vec::new();
        for chunk in keys.chunks_mut(500) {
            chunk.sort_unstable();
            locked.extend(self.0.lock(chunk, DETECTED).await?);
            // Each chunk is a statement, and the next one is another way to the server.
            gap().await;
        }
        Ok(locked)
    }
}

defect! { SortsEachChunk []
    mset(self, kv, items, ttl) {
        let _locked = self.lock(keys_of(items)).await?;
        kv.mset(items, ttl).await
    }
    delete_many(self, kv, keys) {
        let _locked = self.lock(distinct(keys.iter().copied())).await?;
        kv.delete_many(keys).await
    }
}

#[derive(Clone, Debug, Default)]
struct Deadlocks(Rows);

defect! { Deadlocks []
    mset(self, kv, items, ttl) {
        let _locked = self.0.lock(&keys_of(items), DETECTED).await?;
        kv.mset(items, ttl).await
    }
    delete_many(self, kv, keys) {
        let _locked = self.0.lock(&distinct(keys.iter().copied()), DETECTED).await?;
        kv.delete_many(keys).await
    }
}

#[derive(Clone, Debug, Default)]
struct DeadlocksForEver(Rows);

defect! { DeadlocksForEver []
    mset(self, kv, items, ttl) {
        let _locked = self.0.lock(&keys_of(items), FOR_EVER).await?;
        kv.mset(items, ttl).await
    }
}

#[derive(Clone, Debug, Default)]
struct MsetDeadlocksDelete(Rows);

defect! { MsetDeadlocksDelete []
    mset(self, kv, items, ttl) {
        let mut keys = keys_of(items);
        keys.sort_unstable();
        let _locked = self.0.lock(&keys, DETECTED).await?;
        kv.mset(items, ttl).await
    }
    delete_many(self, kv, keys) {
        let _locked = self.0.lock(&distinct(keys.iter().copied()), DETECTED).await?;
        kv.delete_many(keys).await
    }
}

#[derive(Clone, Debug, Default)]
struct IncrDeadlocks(Rows);

defect! { IncrDeadlocks []
    mset(self, kv, items, ttl) {
        let mut keys = keys_of(items);
        keys.sort_unstable();
        let _locked = self.0.lock(&keys, FOR_EVER).await?;
        kv.mset(items, ttl).await
    }
    incr(self, kv, key, by, ttl) {
        let _locked = self.0.row(key).try_lock_owned().map_err(|_| deadlock())?;
        kv.incr(key, by, ttl).await
    }
}

#[derive(Clone, Debug, Default)]
struct LocksWithoutWaiting(Rows);

defect! { LocksWithoutWaiting []
    mset(self, kv, items, ttl) {
        let rows = keys_of(items).into_iter().map(|key| self.0.row(key).try_lock_owned());
        let _locked = rows.collect::<std::result::Result<Vec<_>, _>>().map_err(|_| deadlock())?;
        kv.mset(items, ttl).await
    }
}

/// How many batches have been written.
#[derive(Clone, Debug, Default)]
struct CannotSerialize(Arc<AtomicU64>);

defect! { CannotSerialize []
    mset(self, kv, items, ttl) {
        let before = self.0.load(Ordering::SeqCst);
        kv.mget(&keys_of(items)).await?;
        if self.0.compare_exchange(before, before + 1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Err(Error::new(ErrorKind::Backend, "could not serialize access"));
        }
        kv.mset(items, ttl).await
    }
}

#[derive(Clone, Debug, Default)]
struct OneAtATime(Arc<tokio::sync::Mutex<()>>);

defect! { OneAtATime []
    mset(self, kv, items, ttl) {
        let _alone = self.0.try_lock().map_err(|_| Error::new(ErrorKind::Unavailable, "busy"))?;
        kv.mset(items, ttl).await
    }
}

#[derive(Clone, Debug, Default)]
struct DeleteGivesUp(Arc<tokio::sync::Mutex<()>>);

defect! { DeleteGivesUp []
    mset(self, kv, items, ttl) {
        let _alone = self.0.lock().await;
        kv.mset(items, ttl).await
    }
    delete_many(self, kv, keys) {
        let _alone = self.0.try_lock().map_err(|_| Error::new(ErrorKind::Unavailable, "busy"))?;
        kv.delete_many(keys).await
    }
}

#[derive(Clone, Debug, Default)]
struct MixesTtls;

defect! { MixesTtls []
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
