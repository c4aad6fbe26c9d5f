//! Records that have expired and are still there, and what goes wrong when they are removed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Ttl, defect};

pub(super) fn mutants() -> Vec<Mutant> {
    let expired = "concurrency::expired_keys_race_as_absent";
    let order = "concurrency::any_two_calls_have_an_order";
    vec![
        mutant::<GetRemoves>(
            expired,
            "`get` removes what it found expired, whatever is there by then",
        ),
        mutant::<GetRemovesLater>(expired, "`get` removes what it found expired after a while"),
        mutant::<GetWithTtlRemoves>(expired, "`get_with_ttl` removes by key what it found expired"),
        mutant::<ExistsRemoves>(expired, "`exists` removes by key what it found expired"),
        mutant::<TtlRemoves>(expired, "`ttl` removes by key what it found expired"),
        mutant::<MgetRemoves>(expired, "`mget` removes at its end what it found expired"),
        mutant::<ScanRemoves>(expired, "`scan` removes by key what it found expired"),
        mutant::<SwapRemoves>(expired, "`compare_and_set` removes by key what it found expired"),
        mutant::<CompareRemoves>(
            expired,
            "`compare_and_delete` removes by key what it found expired",
        ),
        mutant::<ExpireRemoves>(expired, "`expire` removes by key what it found expired"),
        mutant::<IncrRemoves>(
            expired,
            "`incr` removes an expired counter, with what others counted",
        ),
        mutant::<SetNxRemoves>(order, "`set_nx` removes an expired record by key, and writes then"),
        mutant::<DeleteAnswersLate>(
            order,
            "`delete` of an expired record deletes what is written since",
        ),
        mutant::<GetRemoves>(
            order,
            "`get` removes what it found expired, whatever is there by then",
        ),
        mutant::<Sweeper>(expired, "a sweeper removes by key what it has found expired"),
        mutant::<SlowSweeper>(expired, "a sweeper removes its finds a while later"),
        mutant::<TimerOfEachKey>(expired, "a timer of each key removes whatever is there by then"),
        mutant::<FreshKeepsDeadline>(
            expired,
            "a write over an expired record leaves it in the index",
        ),
    ]
}

/// When keys expire, and what is still there of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Records(Arc<Mutex<HashMap<Vec<u8>, Instant>>>);

impl Records {
    pub(super) fn wrote(&self, items: &[(&[u8], &[u8])], ttl: Ttl) {
        let mut records = self.0.lock().unwrap();
        for (key, _) in items {
            match ttl {
                Some(ttl) if ttl < Duration::from_secs(1) => {
                    records.insert(key.to_vec(), Instant::now() + ttl);
                }
                _ => drop(records.remove(*key)),
            }
        }
    }

    pub(super) fn is_expired(&self, key: &[u8]) -> bool {
        self.0.lock().unwrap().get(key).is_some_and(|end| *end <= Instant::now())
    }

    /// Whether there is an expired record, which everybody finds who looks at the same time.
    pub(super) fn take_expired(&self, key: &[u8]) -> bool {
        let expired = self.is_expired(key);
        if expired {
            self.0.lock().unwrap().remove(key);
        }
        expired
    }

    fn all_expired(&self) -> Vec<Vec<u8>> {
        let (now, records) = (Instant::now(), self.0.lock().unwrap());
        records.iter().filter(|(_, end)| **end <= now).map(|(key, _)| key.clone()).collect()
    }
}

/// Defects whose writes are remembered, one with one call more.
macro_rules! with_records {
    ($($name:ident { $($call:tt)* })*) => {$(
        #[derive(Clone, Debug, Default)]
        struct $name(Records);

        defect! { $name []
            mset(self, kv, items, ttl) {
                self.0.wrote(items, ttl);
                kv.mset(items, ttl).await
            }
            set(self, kv, key, value, ttl) {
                self.0.wrote(&[(key, value)], ttl);
                kv.set(key, value, ttl).await
            }
            $($call)*
        }
    )*};
}

with_records! {
    GetRemoves {
        get(self, kv, key) {
            if self.0.is_expired(key) {
                kv.delete(key).await?;
                return Ok(None);
            }
            kv.get(key).await
        }
    }
    GetRemovesLater {
        get(self, kv, key) {
            if self.0.take_expired(key) {
                tokio::task::yield_now().await;
                kv.delete(key).await?;
                return Ok(None);
            }
            kv.get(key).await
        }
    }
    GetWithTtlRemoves {
        get_with_ttl(self, kv, key) {
            let found = kv.get_with_ttl(key).await?;
            if found.is_none() && self.0.take_expired(key) {
                kv.delete(key).await?;
            }
            Ok(found)
        }
    }
    ExistsRemoves {
        exists(self, kv, key) {
            let there = kv.exists(key).await?;
            if !there && self.0.take_expired(key) {
                kv.delete(key).await?;
            }
            Ok(there)
        }
    }
    TtlRemoves {
        ttl(self, kv, key) {
            let expiry = kv.ttl(key).await?;
            if expiry.is_none() && self.0.take_expired(key) {
                kv.delete(key).await?;
            }
            Ok(expiry)
        }
    }
    MgetRemoves {
        mget(self, kv, keys) {
            let found = kv.mget(keys).await?;
            for (key, value) in keys.iter().zip(&found) {
                if value.is_none() && self.0.take_expired(key) {
                    kv.delete(key).await?;
                }
            }
            Ok(found)
        }
    }
    ScanRemoves {
        scan(self, kv, prefix) {
            let (records, kv, prefix) = (self.0.clone(), kv.clone(), prefix.to_vec());
            let rest = kv.scan(&prefix);
            let removed = stream::once(async move {
                let all = records.all_expired();
                for key in all.into_iter().filter(|key| key.starts_with(&prefix)) {
                    if records.take_expired(&key) {
                        kv.delete(&key).await?;
                    }
                }
                Ok(None)
            });
            let found = rest.map(|key| key.map(Some));
            removed.chain(found).filter_map(async |key| key.transpose()).boxed()
        }
    }
    SwapRemoves {
        compare_and_set(self, kv, key, expected, value, ttl) {
            let swapped = kv.compare_and_set(key, expected, value, ttl).await?;
            if !swapped && self.0.take_expired(key) {
                kv.delete(key).await?;
            }
            Ok(swapped)
        }
    }
    CompareRemoves {
        compare_and_delete(self, kv, key, expected) {
            if self.0.take_expired(key) {
                kv.delete(key).await?;
                return Ok(false);
            }
            kv.compare_and_delete(key, expected).await
        }
    }
    ExpireRemoves {
        expire(self, kv, key, ttl) {
            if self.0.take_expired(key) {
                kv.delete(key).await?;
                return Ok(false);
            }
            kv.expire(key, ttl).await
        }
    }
    IncrRemoves {
        incr(self, kv, key, by, ttl) {
            if self.0.take_expired(key) {
                kv.delete(key).await?;
            }
            kv.incr(key, by, ttl).await
        }
    }
    SetNxRemoves {
        set_nx(self, kv, key, value, ttl) {
            if self.0.take_expired(key) {
                kv.delete(key).await?;
            }
            kv.set_nx(key, value, ttl).await
        }
    }
    DeleteAnswersLate {
        delete(self, kv, key) {
            if self.0.take_expired(key) {
                kv.delete(key).await?;
                return Ok(false);
            }
            kv.delete(key).await
        }
    }
}

#[derive(Clone, Debug, Default)]
struct FreshKeepsDeadline(Records);

defect! { FreshKeepsDeadline []
    mset(self, kv, items, ttl) {
        self.0.wrote(items, ttl);
        kv.mset(items, ttl).await
    }
    // What was written since is removed by the next reader.
    get_with_ttl(self, kv, key) {
        if self.0.take_expired(key) {
            kv.delete(key).await?;
        }
        kv.get_with_ttl(key).await
    }
}

/// Begins to sweep with the first short TTL.
fn sweep(records: &Records, kv: &MemoryStore, began: &Arc<Mutex<bool>>, pause: Duration) {
    if std::mem::replace(&mut *began.lock().unwrap(), true) {
        return;
    }
    let (records, kv) = (records.clone(), kv.clone());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(3)).await;
            let found = records.all_expired();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            for key in found {
                records.take_expired(&key);
                if kv.delete(&key).await.is_err() {
                    return;
                }
            }
        }
    });
}

#[derive(Clone, Debug, Default)]
struct Sweeper(Records, Arc<Mutex<bool>>);

defect! { Sweeper []
    mset(self, kv, items, ttl) {
        self.0.wrote(items, ttl);
        sweep(&self.0, kv, &self.1, Duration::ZERO);
        kv.mset(items, ttl).await
    }
    set(self, kv, key, value, ttl) {
        self.0.wrote(&[(key, value)], ttl);
        kv.set(key, value, ttl).await
    }
}

#[derive(Clone, Debug, Default)]
struct SlowSweeper(Records, Arc<Mutex<bool>>);

defect! { SlowSweeper []
    mset(self, kv, items, ttl) {
        self.0.wrote(items, ttl);
        sweep(&self.0, kv, &self.1, Duration::from_millis(10));
        kv.mset(items, ttl).await
    }
    set(self, kv, key, value, ttl) {
        self.0.wrote(&[(key, value)], ttl);
        kv.set(key, value, ttl).await
    }
}

#[derive(Clone, Debug, Default)]
struct TimerOfEachKey;

defect! { TimerOfEachKey []
    mset(self, kv, items, ttl) {
        for (key, _) in items {
            if let Some(ttl) = ttl {
                let (kv, key) = (kv.clone(), key.to_vec());
                tokio::spawn(async move {
                    // It is a timer of a wheel that turns every few milliseconds.
                    tokio::time::sleep(ttl + Duration::from_millis(2)).await;
                    kv.delete(&key).await
                });
            }
        }
        kv.mset(items, ttl).await
    }
}
