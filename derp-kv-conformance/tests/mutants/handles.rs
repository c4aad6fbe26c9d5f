//! Stores whose handles keep something for themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;
use tokio::time::Instant;

use super::broken::{Mutant, mutant};
use super::defect::{Defect, Ttl};

pub(super) fn mutants() -> Vec<Mutant> {
    let agree = "expiry::handles_agree";
    vec![
        mutant::<CachesValues>(agree, "each handle keeps the values that it read for 5 ms"),
        mutant::<CachesAbsence>(agree, "each handle keeps for 5 ms that a key was absent"),
        mutant::<CachesPresence>(agree, "`exists` keeps for 5 ms that a key was there"),
        mutant::<CachesExpiries>(agree, "`ttl` counts down from what the handle has read first"),
        mutant::<CachesDated>(
            agree,
            "`get_with_ttl` serves what it read until the TTL that it read has passed",
        ),
        mutant::<CachesBatches>(agree, "`mget` serves the values that the handle read before"),
        mutant::<CachesInEachClone>(agree, "each clone keeps the values that it read for 5 ms"),
        mutant::<CachesUntilItWrites>(
            agree,
            "each handle keeps the values that it read until it writes the key itself",
        ),
        mutant::<OwnDeadlines>(
            agree,
            "each handle ends by itself what it wrote, whatever another has written since",
        ),
        mutant::<OwnDeadlinesLast>(
            agree,
            "each handle serves what it wrote until the TTL that it gave has passed",
        ),
        mutant::<SwapsByCache>(
            agree,
            "`compare_and_set` refuses by the value that the handle has read before",
        ),
    ]
}

type Kept<T> = Arc<Mutex<HashMap<Vec<u8>, (T, Instant)>>>;

const FRESH: Duration = Duration::from_millis(5);

/// What was kept of the key, and since when.
fn kept<T: Clone>(cache: &Kept<T>, key: &[u8]) -> Option<(T, Instant)> {
    cache.lock().unwrap().get(key).cloned()
}

fn keep<T>(cache: &Kept<T>, key: &[u8], what: T) {
    cache.lock().unwrap().insert(key.to_vec(), (what, Instant::now()));
}

/// Makes caches that belong to one handle each. Its own writes of a key drop what is kept of it.
macro_rules! caches {
    ($($name:ident<$kept:ty> { $($method:item)* })*) => {$(
        #[derive(Clone, Debug, Default)]
        struct $name(Kept<$kept>);

        #[async_trait::async_trait]
        impl Defect for $name {
            $($method)*

            async fn set(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
                self.0.lock().unwrap().remove(key);
                kv.set(key, value, ttl).await
            }

            async fn delete(&self, kv: &MemoryStore, key: &[u8]) -> Result<bool> {
                self.0.lock().unwrap().remove(key);
                kv.delete(key).await
            }

            fn elsewhere(&self) -> Option<Arc<dyn Defect>> {
                Some(Arc::new(Self::default()))
            }
        }
    )*};
}

caches! {
    CachesValues<Bytes> {
        async fn get(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
            if let Some((value, _)) = kept(&self.0, key).filter(|(_, at)| at.elapsed() < FRESH) {
                return Ok(Some(value));
            }
            let found = kv.get(key).await?;
            if let Some(value) = &found {
                keep(&self.0, key, value.clone());
            }
            Ok(found)
        }
    }
    CachesAbsence<()> {
        async fn get(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
            if kept(&self.0, key).is_some_and(|((), at)| at.elapsed() < FRESH) {
                return Ok(None);
            }
            let found = kv.get(key).await?;
            if found.is_none() {
                keep(&self.0, key, ());
            }
            Ok(found)
        }
    }
    CachesPresence<()> {
        async fn exists(&self, kv: &MemoryStore, key: &[u8]) -> Result<bool> {
            if kept(&self.0, key).is_some_and(|((), at)| at.elapsed() < FRESH) {
                return Ok(true);
            }
            let there = kv.exists(key).await?;
            if there {
                keep(&self.0, key, ());
            }
            Ok(there)
        }
    }
    CachesExpiries<Expiry> {
        async fn ttl(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Expiry>> {
            if let Some((Expiry::In(left), at)) = kept(&self.0, key) {
                let left = left.saturating_sub(at.elapsed());
                return Ok((!left.is_zero()).then_some(Expiry::In(left)));
            }
            let found = kv.ttl(key).await?;
            if let Some(expiry) = found {
                keep(&self.0, key, expiry);
            }
            Ok(found)
        }
    }
    CachesDated<(Bytes, Expiry)> {
        async fn get_with_ttl(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
            if let Some(((value, Expiry::In(left)), at)) = kept(&self.0, key) {
                let left = left.saturating_sub(at.elapsed());
                if !left.is_zero() {
                    return Ok(Some((value, Expiry::In(left))));
                }
            }
            let found = kv.get_with_ttl(key).await?;
            if let Some(dated) = &found {
                keep(&self.0, key, dated.clone());
            }
            Ok(found)
        }
    }
    CachesBatches<Bytes> {
        async fn mget(&self, kv: &MemoryStore, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
            let found = kv.mget(keys).await?;
            let serve = |(key, found): (&&[u8], Option<Bytes>)| {
                let served = kept(&self.0, key).map(|(value, _)| value);
                if let (None, Some(value)) = (&served, &found) {
                    keep(&self.0, key, value.clone());
                }
                served.or(found)
            };
            Ok(keys.iter().zip(found).map(serve).collect())
        }
    }
    CachesUntilItWrites<Bytes> {
        async fn get(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
            if let Some((value, _)) = kept(&self.0, key) {
                return Ok(Some(value));
            }
            let found = kv.get(key).await?;
            if let Some(value) = &found {
                keep(&self.0, key, value.clone());
            }
            Ok(found)
        }
    }
    SwapsByCache<Bytes> {
        async fn get(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
            let found = kv.get(key).await?;
            if let Some(value) = &found {
                keep(&self.0, key, value.clone());
            }
            Ok(found)
        }

        async fn compare_and_set(
            &self,
            kv: &MemoryStore,
            key: &[u8],
            expected: &[u8],
            value: &[u8],
            ttl: Ttl,
        ) -> Result<bool> {
            if kept(&self.0, key).is_some_and(|(seen, _)| seen != expected) {
                return Ok(false);
            }
            let swapped = kv.compare_and_set(key, expected, value, ttl).await?;
            if swapped {
                keep(&self.0, key, Bytes::copy_from_slice(value));
            }
            Ok(swapped)
        }
    }
}

/// [`CachesValues`] of each clone.
#[derive(Clone, Debug, Default)]
struct CachesInEachClone(CachesValues);

#[async_trait::async_trait]
impl Defect for CachesInEachClone {
    async fn get(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(kv, key).await
    }

    async fn set(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        self.0.set(kv, key, value, ttl).await
    }

    fn cloned(&self) -> Option<Arc<dyn Defect>> {
        Some(Arc::new(Self::default()))
    }
}

/// The deadlines of what this handle wrote with a TTL.
#[derive(Clone, Debug, Default)]
struct OwnDeadlines(Kept<Duration>);

#[async_trait::async_trait]
impl Defect for OwnDeadlines {
    async fn set(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        match ttl {
            Some(ttl) => keep(&self.0, key, ttl),
            None => drop(self.0.lock().unwrap().remove(key)),
        }
        kv.set(key, value, ttl).await
    }

    async fn get(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
        if kept(&self.0, key).is_some_and(|(ttl, at)| at.elapsed() >= ttl) {
            return Ok(None);
        }
        kv.get(key).await
    }

    fn elsewhere(&self) -> Option<Arc<dyn Defect>> {
        Some(Arc::new(Self::default()))
    }
}

/// What this handle wrote, and for how long.
#[derive(Clone, Debug, Default)]
struct OwnDeadlinesLast(Kept<(Bytes, Duration)>);

#[async_trait::async_trait]
impl Defect for OwnDeadlinesLast {
    async fn set(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        match ttl {
            Some(ttl) => keep(&self.0, key, (Bytes::copy_from_slice(value), ttl)),
            None => drop(self.0.lock().unwrap().remove(key)),
        }
        kv.set(key, value, ttl).await
    }

    async fn get(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
        match kept(&self.0, key) {
            Some(((value, ttl), at)) if at.elapsed() < ttl => Ok(Some(value)),
            _ => kv.get(key).await,
        }
    }

    fn elsewhere(&self) -> Option<Arc<dyn Defect>> {
        Some(Arc::new(Self::default()))
    }
}
