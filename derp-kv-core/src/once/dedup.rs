use std::time::Duration;

use bytes::Bytes;

use crate::coordinate::claim::{Claim, claim};
use crate::coordinate::keys::{LOCK_TTL, RETRY_DELAY, check_duration, helper_key};
use crate::coordinate::write_once::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::store::kv_store::KvStore;
use crate::store::ttl::Ttl;

/// What the record of a processed event holds.
const PROCESSED: &[u8] = b"1";

/// Options of [`already_processed`] and [`process_once`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Dedup {
    ttl: Duration,
    lock_ttl: Duration,
    key_prefix: String,
}

impl Default for Dedup {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(24 * 60 * 60),
            lock_ttl: LOCK_TTL,
            key_prefix: "derp:webhook".to_owned(),
        }
    }
}

impl Dedup {
    /// How long an event is remembered. By default 24 hours: choose more than the sender's
    /// schedule of retries, which is up to three days at Stripe.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long an event stays claimed after its handler died. By default two seconds.
    pub fn lock_ttl(mut self, lock_ttl: Duration) -> Self {
        self.lock_ttl = lock_ttl;
        self
    }

    /// What the record's key begins with. By default `derp:webhook`.
    pub fn key_prefix(mut self, key_prefix: impl Into<String>) -> Self {
        self.key_prefix = key_prefix.into();
        self
    }
}

/// Marks an event as processed and tells whether it was before.
///
/// See [`KvStoreExt::already_processed`](crate::KvStoreExt::already_processed).
///
/// # Errors
///
/// As there.
pub async fn already_processed<S, K>(store: &S, event_id: K, options: Dedup) -> Result<bool>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]> + Send + Sync,
{
    let named = |error: Error| error.with_operation("already_processed");
    let key = helper_key(&options.key_prefix, event_id.as_ref()).map_err(named)?;
    let first = store.set_nx(&key, PROCESSED, Some(options.ttl)).await.map_err(named)?;
    Ok(!first)
}

/// What [`process_once`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processed<T> {
    /// The handler ran and returned this.
    Now(T),
    /// The event was processed before; the handler did not run.
    Before,
}

/// Runs `handler` for an event unless it was processed before.
///
/// See [`KvStoreExt::process_once`](crate::KvStoreExt::process_once).
///
/// # Errors
///
/// As there.
pub async fn process_once<S, K, T, F, Fut, E>(
    store: &S,
    event_id: K,
    options: Dedup,
    handler: F,
) -> Result<Processed<T>, E>
where
    S: KvStore + Clone,
    K: AsRef<[u8]> + Send + Sync,
    T: Send,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
    E: From<Error> + Send,
{
    let named = |error: Error| error.with_operation("process_once");
    let key = helper_key(&options.key_prefix, event_id.as_ref()).map_err(named)?;
    Ttl::new(options.ttl).map_err(named)?;
    let lock_ttl = check_duration("lock_ttl", options.lock_ttl).map_err(named)?;
    if store.exists(&key).await.map_err(named)? {
        return Ok(Processed::Before);
    }
    let lease = match claim(store, &key, None, lock_ttl).await.map_err(named)? {
        Claim::Locked(lease) => lease,
        Claim::Found(_) => return Ok(Processed::Before),
        Claim::Held => {
            let message = "another caller handles this event";
            let error = Error::new(ErrorKind::InProgress, message).with_retry_after(lock_ttl);
            return Err(named(error).into());
        }
    };
    let value = match handler().await {
        Ok(value) => value,
        Err(error) => {
            // Where the release fails, it goes on in the background.
            let _ = lease.release().await;
            return Err(error);
        }
    };
    let record = Record {
        key,
        value: Bytes::from_static(PROCESSED),
        ttl: options.ttl,
        pause: RETRY_DELAY,
        patience: lock_ttl,
    };
    record.write(store, lease).await.map_err(named)?;
    Ok(Processed::Now(value))
}
