use std::sync::Arc;

use bytes::Bytes;
use derp_kv_core::{KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use super::broken::{Mutant, Ttl, defect, defects, mutant};

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<DropsStars>("prefix::isolates", "a `*` in a key is dropped"),
        mutant::<StripsItself>(
            "prefix::scan_strips",
            "a scan yields keys without the prefix it was asked for",
        ),
        mutant::<OneLockForAll>(
            "prefix::flights_are_its_own",
            "one lock held makes the callers of all other locks wait",
        ),
    ]
}

/// A lock of the whole table, from a `set_nx` to its `compare_and_delete`.
#[derive(Clone, Debug)]
struct OneLockForAll(Arc<Semaphore>);

impl Default for OneLockForAll {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

defect! { OneLockForAll []
    set_nx(self, kv, key, value, ttl) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
        kv.set_nx(key, value, ttl).await
    }
    compare_and_set(self, kv, key, expected, value, ttl) {
        let _waited = self.0.acquire().await;
        kv.compare_and_set(key, expected, value, ttl).await
    }
    compare_and_delete(self, kv, key, expected) {
        self.0.add_permits(1);
        kv.compare_and_delete(key, expected).await
    }
}

fn without_stars(key: &[u8]) -> Vec<u8> {
    key.iter().copied().filter(|byte| *byte != b'*').collect()
}

defects! {
    DropsStars {
        get(self, kv, key) { kv.get(&without_stars(key)).await }
        set(self, kv, key, value, ttl) { kv.set(&without_stars(key), value, ttl).await }
        delete(self, kv, key) { kv.delete(&without_stars(key)).await }
    }
    StripsItself {
        scan(self, kv, prefix) {
            let strip = prefix.len();
            kv.scan(prefix).map_ok(move |key| key.slice(strip..)).boxed()
        }
    }
}
