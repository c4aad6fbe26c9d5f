//! Stores that find a key expired, and act on it when somebody may have written it anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;
use tokio::time::Instant;

use super::broken::{Mutant, mutant};
use super::defect::{Defect, Ttl, defect, gap};

pub(super) fn mutants() -> Vec<Mutant> {
    let way = "expiry::expired_gives_way";
    vec![
        mutant::<GetSweepsLate>(
            way,
            "`get` removes what it found expired, whatever is there by then",
        ),
        mutant::<ExistsSweepsLate>(
            way,
            "`exists` removes what it found expired, whatever is there by then",
        ),
        mutant::<MgetSweepsLate>(way, "`mget` removes what it found expired a moment later"),
        mutant::<RefusedSwapSweepsLate>(way, "a refused swap removes what it found expired later"),
        mutant::<SetNxReplacesExpired>(
            way,
            "`set_nx` looks whether a key has expired, and then writes over what is there",
        ),
        mutant::<IncrResetsExpired>(
            way,
            "`incr` looks whether a counter has expired, and then begins it anew",
        ),
        mutant::<SweepsByName>(
            way,
            "the sweep notes which keys have expired, and deletes them a moment later",
        ),
        mutant::<SlowSweep<SlowEachSecond>>(
            way,
            "a sweep each second removes by name what it found 200 ms ago",
        ),
        mutant::<SlowSweep<SlowEachFive>>(
            way,
            "a sweep each 5 s removes by name what it found 200 ms ago",
        ),
        mutant::<SlowSweep<SlowEachMinute>>(
            way,
            "a sweep each minute removes by name what it found 200 ms ago",
        ),
        mutant::<DeleteTellsExpired>(way, "of racing deletions one tells of an expired key"),
    ]
}

/// The deadlines of keys, beside their values.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines(pub(super) Arc<Mutex<HashMap<Vec<u8>, Instant>>>);

impl Deadlines {
    pub(super) fn note(&self, key: &[u8], ttl: Ttl) {
        let mut deadlines = self.0.lock().unwrap();
        match ttl {
            Some(ttl) => drop(deadlines.insert(key.to_vec(), Instant::now() + ttl)),
            None => drop(deadlines.remove(key)),
        }
    }

    pub(super) fn left(&self, key: &[u8]) -> Ttl {
        let deadline = self.0.lock().unwrap().get(key).copied()?;
        let left = deadline.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

impl Deadlines {
    /// Whether the key was to end by now: told once of each deadline.
    pub(super) fn has_passed(&self, key: &[u8]) -> bool {
        let mut deadlines = self.0.lock().unwrap();
        let passed = deadlines.get(key).is_some_and(|deadline| *deadline <= Instant::now());
        if passed {
            deadlines.remove(key);
        }
        passed
    }

    pub(super) fn passed(&self) -> Vec<Vec<u8>> {
        let deadlines = self.0.lock().unwrap();
        let now = Instant::now();
        let passed = deadlines.iter().filter(|(_, deadline)| **deadline <= now);
        passed.map(|(key, _)| key.clone()).collect()
    }
}

/// Makes stores in whose tables expired keys stay until a call meets them, which is one of these.
macro_rules! lazy {
    ($($name:ident { $($calls:tt)* })*) => {$(
        #[derive(Clone, Debug, Default)]
        struct $name(Deadlines);

        defect! { $name []
            set(self, kv, key, value, ttl) {
                self.0.note(key, ttl);
                kv.set(key, value, ttl).await
            }
            mset(self, kv, items, ttl) {
                for (key, _) in items {
                    self.0.note(key, ttl);
                }
                kv.mset(items, ttl).await
            }
            $($calls)*
        }
    )*};
}

lazy! {
    GetSweepsLate {
        get(self, kv, key) {
            if self.0.has_passed(key) {
                gap().await;
                kv.delete(key).await?;
                return Ok(None);
            }
            kv.get(key).await
        }
    }
    ExistsSweepsLate {
        exists(self, kv, key) {
            if self.0.has_passed(key) {
                gap().await;
                kv.delete(key).await?;
                return Ok(false);
            }
            kv.exists(key).await
        }
    }
    MgetSweepsLate {
        mget(self, kv, keys) {
            let found = kv.mget(keys).await?;
            let passed: Vec<_> = keys.iter().filter(|key| self.0.has_passed(key)).collect();
            gap().await;
            for key in passed {
                kv.delete(key).await?;
            }
            Ok(found)
        }
    }
    RefusedSwapSweepsLate {
        compare_and_set(self, kv, key, expected, value, ttl) {
            if self.0.has_passed(key) {
                gap().await;
                kv.delete(key).await?;
                return Ok(false);
            }
            kv.compare_and_set(key, expected, value, ttl).await
        }
    }
    DeleteTellsExpired {
        delete(self, kv, key) { Ok(self.0.has_passed(key) || kv.delete(key).await?) }
    }
}

#[derive(Clone, Debug, Default)]
struct SetNxReplacesExpired(Deadlines);

defect! { SetNxReplacesExpired []
    set(self, kv, key, value, ttl) {
        self.0.note(key, ttl);
        kv.set(key, value, ttl).await
    }
    set_nx(self, kv, key, value, ttl) {
        let passed = self.0.left(key).is_none() && self.0.0.lock().unwrap().contains_key(key);
        if passed && !kv.exists(key).await? {
            gap().await;
            self.0.note(key, ttl);
            return kv.set(key, value, ttl).await.map(|()| true);
        }
        let written = kv.set_nx(key, value, ttl).await?;
        if written {
            self.0.note(key, ttl);
        }
        Ok(written)
    }
}

#[derive(Clone, Debug, Default)]
struct IncrResetsExpired(Deadlines);

defect! { IncrResetsExpired []
    incr(self, kv, key, by, ttl) {
        let known = self.0.0.lock().unwrap().contains_key(key);
        if known && !kv.exists(key).await? {
            gap().await;
            self.0.note(key, ttl);
            kv.set(key, by.to_string().as_bytes(), ttl).await?;
            return Ok(Counter { value: by, expiry: ttl.map_or(Expiry::Never, Expiry::In) });
        }
        self.0.note(key, ttl);
        kv.incr(key, by, ttl).await
    }
    set(self, kv, key, value, ttl) {
        self.0.note(key, ttl);
        kv.set(key, value, ttl).await
    }
}

/// Whether the sweep is on its way, which the first write sends off.
#[derive(Clone, Debug, Default)]
struct SweepsByName(Deadlines, Arc<AtomicBool>);

defect! { SweepsByName []
    set(self, kv, key, value, ttl) {
        self.0.note(key, ttl);
        if !self.1.swap(true, Ordering::SeqCst) {
            let (deadlines, kv) = (self.0.clone(), kv.clone());
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let passed = deadlines.passed();
                    gap().await;
                    for key in passed {
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

/// The deadlines, and whether the sweep is on its way.
#[derive(Clone, Debug, Default)]
struct SlowSweep<P>(Deadlines, Arc<AtomicBool>, P);

/// How often something runs.
trait Period: std::fmt::Debug + Default + Send + Sync + 'static {
    const SECONDS: u64;
}

/// Makes a period of each.
macro_rules! periods {
    ($($name:ident: $seconds:literal;)*) => {$(
        #[derive(Debug, Default)]
        struct $name;

        impl Period for $name {
            const SECONDS: u64 = $seconds;
        }
    )*};
}

periods! {
    SlowEachSecond: 1;
    SlowEachFive: 5;
    SlowEachMinute: 60;
}

impl<P: Period> SlowSweep<P> {
    fn begin(&self, kv: &MemoryStore) {
        if self.1.swap(true, Ordering::SeqCst) {
            return;
        }
        let (deadlines, kv) = (self.0.clone(), kv.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(P::SECONDS)).await;
                let passed = deadlines.passed();
                tokio::time::sleep(Duration::from_millis(200)).await;
                for key in passed {
                    kv.delete(&key).await?;
                    deadlines.note(&key, None);
                }
            }
            #[allow(unreachable_code, reason = "tells the type of the errors")]
            Ok::<(), derp_kv_core::Error>(())
        });
    }
}

#[async_trait::async_trait]
impl<P: Period> Defect for SlowSweep<P> {
    async fn mset(&self, kv: &MemoryStore, items: &[(&[u8], &[u8])], ttl: Ttl) -> Result<()> {
        self.begin(kv);
        for (key, _) in items {
            self.0.note(key, ttl);
        }
        kv.mset(items, ttl).await
    }

    async fn set(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        self.begin(kv);
        self.0.note(key, ttl);
        kv.set(key, value, ttl).await
    }
}
