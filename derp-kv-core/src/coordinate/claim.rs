use crate::coordinate::entry::{Entry, Reading};
use crate::coordinate::keys::lock_key;
use crate::coordinate::lease::{Acquired, Lease, Terms};
use crate::error::{Error, ErrorKind, Result};
use crate::store::kv_store::KvStore;

/// What came of contending for the work behind a key.
pub(crate) enum Claim {
    /// The work is the caller's: it holds the lock, and its result is not there.
    Locked(Lease),
    /// The result is there.
    Found(Entry),
    /// Somebody else does the work.
    Held,
    /// The store is slower than the lock lasts: it was the caller's, and has run out.
    Late,
}

/// Takes the lock of `key`, whose value is the result of the work that the lock stands for. It looks for
/// that result under the lock, unless its caller is to do so.
pub(crate) async fn claim<S: KvStore + Clone>(
    store: &S,
    key: &[u8],
    reading: Reading<'_>,
    tag: Option<&str>,
    lease: Terms,
    looks: bool,
) -> Result<Claim> {
    let lease = match Lease::acquire(store, lock_key(key), tag, lease).await? {
        Acquired::Lease(lease) => lease,
        Acquired::Held => return Ok(Claim::Held),
        Acquired::Late => return Ok(Claim::Late),
    };
    // The holder before may have finished between the caller's look and its lock.
    let result = if looks { reading.read(store, key).await? } else { None };
    match result {
        Some(result) => {
            // Whether it could be released matters to nobody: the result is there.
            let _ = lease.release().await;
            Ok(Claim::Found(result))
        }
        None if lease.is_lost() => Ok(Claim::Late),
        None => Ok(Claim::Locked(lease)),
    }
}

/// What a caller hears whose every claim came too late.
pub(crate) fn too_slow() -> Error {
    let message = "the store answers later than the lock lasts; choose a longer `lock_ttl`";
    Error::new(ErrorKind::Timeout, message)
}
