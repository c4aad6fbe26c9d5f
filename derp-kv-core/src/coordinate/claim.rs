use std::time::Duration;

use bytes::Bytes;

use crate::coordinate::keys::lock_key;
use crate::coordinate::lease::Lease;
use crate::error::Result;
use crate::store::kv_store::KvStore;

/// What came of contending for the work behind a key.
pub(crate) enum Claim {
    /// The work is the caller's: it holds the lock, and its result is not there.
    Locked(Lease),
    /// The result is there.
    Found(Bytes),
    /// Somebody else does the work.
    Held,
}

/// Takes the lock of `key`, whose value is the result of the work that the lock stands for.
pub(crate) async fn claim<S: KvStore + Clone>(
    store: &S,
    key: &[u8],
    tag: Option<&str>,
    lock_ttl: Duration,
) -> Result<Claim> {
    let Some(lease) = Lease::acquire(store, lock_key(key), tag, lock_ttl).await? else {
        return Ok(Claim::Held);
    };
    // The holder before may have finished between the caller's look and its lock.
    match store.get(key).await? {
        Some(result) => {
            // Whether it could be released matters to nobody: the result is there.
            let _ = lease.release().await;
            Ok(Claim::Found(result))
        }
        // The store was so slow that somebody else may have the lock by now.
        None if lease.is_lost() => Ok(Claim::Held),
        None => Ok(Claim::Locked(lease)),
    }
}
