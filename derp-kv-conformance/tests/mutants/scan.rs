mod literal;
mod pages;

use std::collections::HashSet;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use derp_kv_core::{KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{RwLock, Semaphore};

use super::broken::{Mutant, mutant};
use super::defect::{Ttl, defect, defects, gap};

pub(super) fn mutants() -> Vec<Mutant> {
    [own(), literal::mutants(), pages::mutants()].into_iter().flatten().collect()
}

fn own() -> Vec<Mutant> {
    vec![
        mutant::<Glob>("scan::prefix_is_literal", "the prefix of a scan is a glob"),
        mutant::<EmptyIsNone>("scan::prefix_is_literal", "the empty prefix finds nothing"),
        mutant::<FirstPage>("scan::sees_every_stable_key", "a scan ends after 50 keys"),
        mutant::<Offsets>(
            "scan::sees_every_stable_key",
            "a scan goes on where it was by its number of keys",
        ),
        mutant::<Remembers>("scan::never_invents", "a scan yields deleted keys"),
        mutant::<Contains>("scan::never_invents", "a scan yields keys that hold the prefix"),
        mutant::<Locks>("scan::ends_when_dropped", "a scan locks the store until it ends"),
        mutant::<TakesConnections>("scan::ends_when_dropped", "a scan keeps one of 16 connections"),
        mutant::<LosesConnections>(
            "scan::ends_when_dropped",
            "a dropped scan loses one of 100 connections",
        ),
        mutant::<Drains>("scan::ends_when_dropped", "a scan takes the keys out while it lasts"),
    ]
}

/// Whether the pattern matches a beginning of the key, `*` and `?` being wildcards.
fn matches(pattern: &[u8], key: &[u8]) -> bool {
    match (pattern, key) {
        ([], _) => true,
        ([b'*', pattern @ ..], key) => (0..=key.len()).any(|skip| matches(pattern, &key[skip..])),
        ([b'?', pattern @ ..], [_, key @ ..]) => matches(pattern, key),
        ([byte, pattern @ ..], [other, key @ ..]) => byte == other && matches(pattern, key),
        (_, []) => false,
    }
}

#[derive(Clone, Debug, Default)]
struct Remembers(Arc<Mutex<HashSet<Vec<u8>>>>);

defect! { Remembers []
    set(self, kv, key, value, ttl) {
        self.0.lock().unwrap().insert(key.to_vec());
        kv.set(key, value, ttl).await
    }
    scan(self, _kv, prefix) {
        let keys = self.0.lock().unwrap().clone();
        let prefix = prefix.to_vec();
        let found = keys.into_iter().filter(move |key| key.starts_with(&prefix));
        stream::iter(found.map(|key| Ok(Bytes::from(key)))).boxed()
    }
}

#[derive(Clone, Debug, Default)]
struct Locks(Arc<RwLock<()>>);

defect! { Locks []
    set(self, kv, key, value, ttl) {
        let _writing = self.0.write().await;
        kv.set(key, value, ttl).await
    }
    scan(self, kv, prefix) {
        let (lock, keys) = (self.0.clone(), kv.scan(prefix));
        let locked = async move {
            let reading = lock.read_owned().await;
            keys.inspect(move |_| {
                let _ = &reading;
            })
        };
        stream::once(locked).flatten().boxed()
    }
}

/// A connection for each scan and call.
async fn connected(
    pool: Arc<Semaphore>,
    keys: BoxStream<'static, Result<Bytes>>,
    lost: bool,
) -> BoxStream<'static, Result<Bytes>> {
    let connection = pool.acquire_owned().await.ok();
    if lost {
        // Given back by who comes to the end alone.
        let mut connection = connection.map(ManuallyDrop::new);
        let end = stream::once(async move {
            connection.take().map(ManuallyDrop::into_inner);
        });
        return keys.chain(end.filter_map(|()| std::future::ready(None))).boxed();
    }
    keys.inspect(move |_| {
        let _ = &connection;
    })
    .boxed()
}

#[derive(Clone, Debug)]
struct TakesConnections(Arc<Semaphore>);

impl Default for TakesConnections {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(16)))
    }
}

defect! { TakesConnections []
    set(self, kv, key, value, ttl) {
        let _connection = self.0.acquire().await;
        kv.set(key, value, ttl).await
    }
    scan(self, kv, prefix) {
        stream::once(connected(self.0.clone(), kv.scan(prefix), false)).flatten().boxed()
    }
}

#[derive(Clone, Debug)]
struct LosesConnections(Arc<Semaphore>);

impl Default for LosesConnections {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(100)))
    }
}

defect! { LosesConnections []
    set(self, kv, key, value, ttl) {
        let _connection = self.0.acquire().await;
        kv.set(key, value, ttl).await
    }
    scan(self, kv, prefix) {
        stream::once(connected(self.0.clone(), kv.scan(prefix), true)).flatten().boxed()
    }
}

/// The next page, by how many keys came before.
async fn page(kv: &MemoryStore, prefix: &[u8], before: usize) -> Result<Vec<Bytes>> {
    let mut keys: Vec<_> = kv.scan(prefix).try_collect().await?;
    keys.sort_unstable();
    Ok(keys.into_iter().skip(before).take(50).collect())
}

/// How many keys were deleted.
#[derive(Clone, Debug, Default)]
struct Offsets(Arc<AtomicU32>);

defect! { Offsets []
    scan(self, kv, prefix) {
        let (store, prefix) = (kv.clone(), prefix.to_vec());
        let pages = stream::try_unfold(0, move |before| {
            let (store, prefix) = (store.clone(), prefix.clone());
            async move {
                // A server is not as near as this store.
                gap().await;
                let keys = page(&store, &prefix, before).await?;
                let next = before + keys.len();
                Ok((!keys.is_empty()).then_some((keys, next)))
            }
        });
        pages.map_ok(|keys| stream::iter(keys.into_iter().map(Ok))).try_flatten().boxed()
    }
    delete(self, kv, key) {
        // Slow enough for a scan to meet a store that shrinks.
        if self.0.fetch_add(1, Ordering::SeqCst).is_multiple_of(50) {
            gap().await;
        }
        kv.delete(key).await
    }
}

defects! {
    Glob {
        scan(self, kv, prefix) {
            let pattern = prefix.to_vec();
            kv.scan(b"").try_filter(move |key| std::future::ready(matches(&pattern, key))).boxed()
        }
    }
    EmptyIsNone {
        scan(self, kv, prefix) {
            if prefix.is_empty() { stream::empty().boxed() } else { kv.scan(prefix) }
        }
    }
    FirstPage {
        scan(self, kv, prefix) { kv.scan(prefix).take(50).boxed() }
    }
    Contains {
        scan(self, kv, prefix) {
            let part = prefix.to_vec();
            let holds = move |key: &Bytes| {
                let holds = part.is_empty() || key.windows(part.len()).any(|at| at == part);
                std::future::ready(holds)
            };
            kv.scan(b"").try_filter(holds).boxed()
        }
    }
    Drains {
        scan(self, kv, prefix) {
            let store = kv.clone();
            let take = move |key: Bytes| {
                let store = store.clone();
                async move {
                    store.delete(&key).await?;
                    Ok(key)
                }
            };
            kv.scan(prefix).and_then(take).boxed()
        }
    }
}
