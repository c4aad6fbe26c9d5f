//! Stores that have one key for several.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;

use crate::mutants::defect::{Defect, Ttl};

/// What a store makes of each key that it is given.
pub(super) trait Folds: Debug + Send + Sync + 'static {
    fn fold(key: &[u8]) -> Vec<u8>;
}

fn folded<F: Folds>(keys: &[&[u8]]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| F::fold(key)).collect()
}

fn slices(keys: &[Vec<u8>]) -> Vec<&[u8]> {
    keys.iter().map(Vec::as_slice).collect()
}

#[async_trait]
impl<F: Folds> Defect for F {
    async fn get(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Bytes>> {
        kv.get(&F::fold(key)).await
    }

    async fn get_with_ttl(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        kv.get_with_ttl(&F::fold(key)).await
    }

    async fn exists(&self, kv: &MemoryStore, key: &[u8]) -> Result<bool> {
        kv.exists(&F::fold(key)).await
    }

    async fn ttl(&self, kv: &MemoryStore, key: &[u8]) -> Result<Option<Expiry>> {
        kv.ttl(&F::fold(key)).await
    }

    async fn mget(&self, kv: &MemoryStore, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        kv.mget(&slices(&folded::<F>(keys))).await
    }

    fn scan(&self, kv: &MemoryStore, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        kv.scan(&F::fold(prefix))
    }

    async fn set(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        kv.set(&F::fold(key), value, ttl).await
    }

    async fn mset(&self, kv: &MemoryStore, items: &[(&[u8], &[u8])], ttl: Ttl) -> Result<()> {
        let keys: Vec<_> = items.iter().map(|(key, _)| F::fold(key)).collect();
        let items: Vec<_> =
            keys.iter().zip(items).map(|(key, (_, value))| (&key[..], *value)).collect();
        kv.mset(&items, ttl).await
    }

    async fn delete(&self, kv: &MemoryStore, key: &[u8]) -> Result<bool> {
        kv.delete(&F::fold(key)).await
    }

    async fn delete_many(&self, kv: &MemoryStore, keys: &[&[u8]]) -> Result<u64> {
        kv.delete_many(&slices(&folded::<F>(keys))).await
    }

    async fn expire(&self, kv: &MemoryStore, key: &[u8], ttl: Duration) -> Result<bool> {
        kv.expire(&F::fold(key), ttl).await
    }

    async fn set_nx(&self, kv: &MemoryStore, key: &[u8], value: &[u8], ttl: Ttl) -> Result<bool> {
        kv.set_nx(&F::fold(key), value, ttl).await
    }

    async fn incr(&self, kv: &MemoryStore, key: &[u8], by: i64, ttl: Ttl) -> Result<Counter> {
        kv.incr(&F::fold(key), by, ttl).await
    }

    async fn compare_and_set(
        &self,
        kv: &MemoryStore,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Ttl,
    ) -> Result<bool> {
        kv.compare_and_set(&F::fold(key), expected, value, ttl).await
    }

    async fn compare_and_delete(
        &self,
        kv: &MemoryStore,
        key: &[u8],
        expected: &[u8],
    ) -> Result<bool> {
        kv.compare_and_delete(&F::fold(key), expected).await
    }
}

/// Makes a store of each, with what it makes of a key.
macro_rules! folds {
    ($($name:ident: $key:ident => $fold:expr;)*) => {$(
        #[derive(Clone, Debug, Default)]
        struct $name;

        impl $crate::mutants::basics::folds::Folds for $name {
            fn fold($key: &[u8]) -> Vec<u8> {
                $fold
            }
        }
    )*};
}

pub(super) use folds;
