use std::time::Duration;

use tokio::time::Instant;

use crate::coordinate::keys::{RETRY_DELAY, check_duration, check_key, lock_key};
use crate::coordinate::lease::Lease;
use crate::error::{Error, ErrorKind, Result};
use crate::store::kv_store::KvStore;

/// Takes the lease of `key` unless somebody holds it.
///
/// See [`KvStoreExt::try_lock`](crate::KvStoreExt::try_lock).
///
/// # Errors
///
/// As there.
pub async fn try_lock<S, K>(store: &S, key: K, ttl: Duration) -> Result<Option<Lease>>
where
    S: KvStore + Clone,
    K: AsRef<[u8]> + Send + Sync,
{
    let key = key.as_ref();
    check_key(key)?;
    let ttl = check_duration("ttl", ttl)?;
    Lease::acquire(store, lock_key(key), None, ttl).await
}

/// Takes the lease of `key`, and waits for it no longer than `at_most`.
///
/// See [`KvStoreExt::lock`](crate::KvStoreExt::lock).
///
/// # Errors
///
/// As there.
pub async fn lock<S, K>(store: &S, key: K, ttl: Duration, at_most: Duration) -> Result<Lease>
where
    S: KvStore + Clone,
    K: AsRef<[u8]> + Send + Sync,
{
    let began = Instant::now();
    let record = lock_key(key.as_ref());
    loop {
        if let Some(lease) = try_lock(store, key.as_ref(), ttl).await? {
            return Ok(lease);
        }
        let left = at_most.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(Error::new(ErrorKind::Timeout, "somebody else holds the lock")
                .with_operation("lock"));
        }
        if let Some(holder) = store.get(&record).await? {
            store.wait_for_change(&record, Some(&holder), left.min(RETRY_DELAY)).await;
        }
    }
}
