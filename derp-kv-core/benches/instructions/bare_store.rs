use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Error, ErrorKind, Expiry, Flights, KvStore, Result};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};

/// No more of a store than `guarded_get` needs without contention: no clock, no expiry. What it
/// costs is nearly all of the helper itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct BareStore {
    entries: Arc<Mutex<HashMap<Bytes, Bytes>>>,
    flights: Arc<Flights>,
}

impl BareStore {
    fn entries(&self) -> MutexGuard<'_, HashMap<Bytes, Bytes>> {
        self.entries.lock().expect("no panic under the lock")
    }
}

/// What an uncontended `guarded_get` has no need of.
fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "the bare store has no such operation")
}

#[async_trait]
impl KvStore for BareStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.entries().get(key).cloned())
    }

    async fn set(&self, key: &[u8], value: &[u8], _: Option<Duration>) -> Result<()> {
        self.entries().insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        Ok(())
    }

    async fn set_nx(&self, key: &[u8], value: &[u8], _: Option<Duration>) -> Result<bool> {
        let mut entries = self.entries();
        let absent = !entries.contains_key(key);
        if absent {
            entries.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        }
        Ok(absent)
    }

    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        let mut entries = self.entries();
        let equal = entries.get(key).is_some_and(|value| value == expected);
        if equal {
            entries.remove(key);
        }
        Ok(equal)
    }

    fn flights(&self) -> Option<&Flights> {
        Some(&self.flights)
    }

    async fn get_with_ttl(&self, _: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        Err(unsupported())
    }

    async fn exists(&self, _: &[u8]) -> Result<bool> {
        Err(unsupported())
    }

    async fn ttl(&self, _: &[u8]) -> Result<Option<Expiry>> {
        Err(unsupported())
    }

    async fn mget(&self, _: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        Err(unsupported())
    }

    fn scan(&self, _: &[u8]) -> BoxStream<'static, Result<Bytes>> {
        stream::iter([Err(unsupported())]).boxed()
    }

    async fn mset(&self, _: &[(&[u8], &[u8])], _: Option<Duration>) -> Result<()> {
        Err(unsupported())
    }

    async fn delete(&self, _: &[u8]) -> Result<bool> {
        Err(unsupported())
    }

    async fn delete_many(&self, _: &[&[u8]]) -> Result<u64> {
        Err(unsupported())
    }

    async fn expire(&self, _: &[u8], _: Duration) -> Result<bool> {
        Err(unsupported())
    }

    async fn incr(&self, _: &[u8], _: i64, _: Option<Duration>) -> Result<Counter> {
        Err(unsupported())
    }

    async fn compare_and_set(
        &self,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: Option<Duration>,
    ) -> Result<bool> {
        Err(unsupported())
    }
}
