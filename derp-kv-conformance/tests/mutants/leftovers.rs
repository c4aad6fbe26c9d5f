//! Stores in which something of an older write is left.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use derp_kv_core::{Counter, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;
use tokio::time::Instant;

use super::broken::{Mutant, mutant};
use super::defect::{Ttl, defect, defects};
use super::sweeps::Deadlines;

pub(super) fn mutants() -> Vec<Mutant> {
    let decides = "expiry::last_write_decides";
    vec![
        mutant::<DeleteKeepsDeadline>(
            decides,
            "`delete` leaves the deadline in a table of its own, for the next value",
        ),
        mutant::<DeleteManyKeepsTimer>(
            decides,
            "`delete_many` leaves the timer of the key, which ends the next value",
        ),
        mutant::<SwapKeepsTimer>(decides, "a swap leaves the timer of the value before"),
        mutant::<ExpireKeepsTimer>(decides, "`expire` leaves the timer of the TTL before"),
        mutant::<MsetKeepsTimer>(decides, "`mset` leaves the timers of the values before"),
        mutant::<IncrInherits>(decides, "`incr` of an expired counter has its old deadline"),
        mutant::<IncrGoesOn>(decides, "`incr` goes on with the count of an expired counter"),
        mutant::<ExpireRevives>(decides, "`expire` revives a key that has expired unswept"),
        mutant::<SetNxKeepsLonger>(decides, "`set_nx` keeps the longer TTL of a deleted value"),
        mutant::<ExpireNeverOnForever>(decides, "`expire` after a `set_nx` without TTL is lost"),
        mutant::<SwapWithoutKeepsTtl>(decides, "a swap without a TTL keeps the TTL before"),
        mutant::<SweepsByIndex>(
            decides,
            "each minute a sweep deletes all keys whose TTL was to end by then, renewed or not",
        ),
        mutant::<SwapTakesLonger>(decides, "a swap takes the longer of the two TTLs"),
    ]
}

/// Deadlines of which the index forgets none.
#[derive(Clone, Debug, Default)]
struct SweepsByIndex(Deadlines, Arc<AtomicBool>);

defect! { SweepsByIndex []
    set(self, kv, key, value, ttl) {
        if ttl.is_some() {
            self.0.note(key, ttl);
        }
        if !self.1.swap(true, Ordering::SeqCst) {
            let (deadlines, kv) = (self.0.clone(), kv.clone());
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    for key in deadlines.passed() {
                        kv.delete(&key).await?;
                        deadlines.note(&key, None);
                    }
                }
                #[allow(unreachable_code, reason = "tells the type of the errors")]
                Ok::<(), derp_kv_core::Error>(())
            });
        }
        kv.set(key, value, ttl).await
    }
}

#[derive(Clone, Debug, Default)]
struct DeleteKeepsDeadline(Deadlines);

defect! { DeleteKeepsDeadline []
    set(self, kv, key, value, ttl) {
        if ttl.is_some() {
            self.0.note(key, ttl);
        }
        let deleted = !kv.exists(key).await?;
        kv.set(key, value, if deleted { ttl.or(self.0.left(key)) } else { ttl }).await
    }
}

#[derive(Clone, Debug, Default)]
struct SetNxKeepsLonger(Deadlines);

defect! { SetNxKeepsLonger []
    set(self, kv, key, value, ttl) {
        self.0.note(key, ttl);
        kv.set(key, value, ttl).await
    }
    set_nx(self, kv, key, value, ttl) {
        kv.set_nx(key, value, ttl.map(|ttl| ttl.max(self.0.left(key).unwrap_or(ttl)))).await
    }
}

#[derive(Clone, Debug, Default)]
struct IncrInherits(Deadlines);

defect! { IncrInherits []
    incr(self, kv, key, by, ttl) {
        let had = self.0.0.lock().unwrap().contains_key(key);
        if !had {
            self.0.note(key, ttl);
            return kv.incr(key, by, ttl).await;
        }
        if kv.exists(key).await? {
            return kv.incr(key, by, ttl).await;
        }
        // The deadline that it once had has passed: the new count ends as soon as it is there.
        kv.incr(key, by, ttl.map(|_| self.0.left(key).unwrap_or(Duration::from_millis(1)))).await
    }
}

/// The counts that were reached, expired or not.
#[derive(Clone, Debug, Default)]
struct IncrGoesOn(Arc<Mutex<HashMap<Vec<u8>, i64>>>);

defect! { IncrGoesOn []
    incr(self, kv, key, by, ttl) {
        let before = self.0.lock().unwrap().get(key).copied();
        let by = match before {
            Some(before) if !kv.exists(key).await? => before.saturating_add(by),
            _ => by,
        };
        let counter = kv.incr(key, by, ttl).await?;
        self.0.lock().unwrap().insert(key.to_vec(), counter.value);
        Ok(counter)
    }
    delete(self, kv, key) {
        self.0.lock().unwrap().remove(key);
        kv.delete(key).await
    }
    delete_many(self, kv, keys) {
        for key in keys {
            self.0.lock().unwrap().remove(*key);
        }
        kv.delete_many(keys).await
    }
    compare_and_delete(self, kv, key, expected) {
        self.0.lock().unwrap().remove(key);
        kv.compare_and_delete(key, expected).await
    }
}

/// The values that `set` wrote, expired or not.
#[derive(Clone, Debug, Default)]
struct ExpireRevives(Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>);

defect! { ExpireRevives []
    set(self, kv, key, value, ttl) {
        self.0.lock().unwrap().insert(key.to_vec(), value.to_vec());
        kv.set(key, value, ttl).await
    }
    delete(self, kv, key) {
        self.0.lock().unwrap().remove(key);
        kv.delete(key).await
    }
    delete_many(self, kv, keys) {
        for key in keys {
            self.0.lock().unwrap().remove(*key);
        }
        kv.delete_many(keys).await
    }
    compare_and_delete(self, kv, key, expected) {
        self.0.lock().unwrap().remove(key);
        kv.compare_and_delete(key, expected).await
    }
    expire(self, kv, key, ttl) {
        if kv.expire(key, ttl).await? {
            return Ok(true);
        }
        let unswept = self.0.lock().unwrap().get(key).cloned();
        match unswept {
            Some(value) => kv.set(key, &value, Some(ttl)).await.map(|()| true),
            None => Ok(false),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct ExpireNeverOnForever(Arc<Mutex<std::collections::HashSet<Vec<u8>>>>);

defect! { ExpireNeverOnForever []
    set_nx(self, kv, key, value, ttl) {
        let written = kv.set_nx(key, value, ttl).await?;
        if written && ttl.is_none() {
            self.0.lock().unwrap().insert(key.to_vec());
        }
        Ok(written)
    }
    expire(self, kv, key, ttl) {
        if self.0.lock().unwrap().contains(key) {
            return kv.exists(key).await;
        }
        kv.expire(key, ttl).await
    }
}

/// Deletes the key when the TTL is over, whatever it holds by then.
fn start_timer(kv: &MemoryStore, key: &[u8], ttl: Ttl) {
    let Some(ttl) = ttl else { return };
    let (kv, key, ends) = (kv.clone(), key.to_vec(), Instant::now() + ttl);
    tokio::spawn(async move {
        tokio::time::sleep_until(ends).await;
        kv.delete(&key).await
    });
}

/// A timer for each key that `set` gives a TTL, which the other calls know to stop, but for one.
#[derive(Clone, Debug, Default)]
struct Timers(Arc<Mutex<HashMap<Vec<u8>, Option<tokio::task::AbortHandle>>>>);

impl Timers {
    fn stop(&self, key: &[u8]) {
        if let Some(Some(timer)) = self.0.lock().unwrap().remove(key) {
            timer.abort();
        }
    }

    fn start(&self, kv: &MemoryStore, key: &[u8], ttl: Ttl) {
        self.stop(key);
        let Some(ttl) = ttl else { return };
        let (kv, owned, ends) = (kv.clone(), key.to_vec(), Instant::now() + ttl);
        let timer = tokio::spawn(async move {
            tokio::time::sleep_until(ends).await;
            kv.delete(&owned).await
        });
        self.0.lock().unwrap().insert(key.to_vec(), Some(timer.abort_handle()));
    }
}

/// Makes stores with timers of which one kind of call leaves those that run.
macro_rules! timers {
    ($($name:ident: $leaves:literal)*) => {$(
        #[derive(Clone, Debug, Default)]
        struct $name(Timers);

        defect! { $name []
            set(self, kv, key, value, ttl) {
                self.0.start(kv, key, ttl);
                kv.set(key, value, ttl).await
            }
            mset(self, kv, items, ttl) {
                for (key, _) in items {
                    if $leaves == "mset" { start_timer(kv, key, ttl) } else { self.0.start(kv, key, ttl) }
                }
                kv.mset(items, ttl).await
            }
            compare_and_set(self, kv, key, expected, value, ttl) {
                let swapped = kv.compare_and_set(key, expected, value, ttl).await?;
                if swapped && $leaves != "compare_and_set" {
                    self.0.start(kv, key, ttl);
                }
                Ok(swapped)
            }
            expire(self, kv, key, ttl) {
                let there = kv.expire(key, ttl).await?;
                if there && $leaves != "expire" {
                    self.0.start(kv, key, Some(ttl));
                }
                Ok(there)
            }
            delete(self, kv, key) {
                self.0.stop(key);
                kv.delete(key).await
            }
            delete_many(self, kv, keys) {
                for key in keys {
                    if $leaves != "delete_many" {
                        self.0.stop(key);
                    }
                }
                kv.delete_many(keys).await
            }
            compare_and_delete(self, kv, key, expected) {
                let deleted = kv.compare_and_delete(key, expected).await?;
                if deleted {
                    self.0.stop(key);
                }
                Ok(deleted)
            }
        }
    )*};
}

timers! {
    DeleteManyKeepsTimer: "delete_many"
    SwapKeepsTimer: "compare_and_set"
    ExpireKeepsTimer: "expire"
    MsetKeepsTimer: "mset"
}

defects! {
    SwapWithoutKeepsTtl {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let before = kv.ttl(key).await?.and_then(Expiry::remaining);
            kv.compare_and_set(key, expected, value, ttl.or(before)).await
        }
    }
    SwapTakesLonger {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let before = kv.ttl(key).await?.and_then(Expiry::remaining);
            let longer = ttl.map(|ttl| before.map_or(ttl, |before| before.max(ttl)));
            kv.compare_and_set(key, expected, value, longer).await
        }
    }
}
