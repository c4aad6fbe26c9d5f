use bytes::Bytes;

use crate::coordinate::claim::{Claim, claim, too_slow};
use crate::coordinate::entry::Reading;
use crate::coordinate::keys::{RETRY_DELAY, WEBHOOK_PREFIX, helper_key};
use crate::coordinate::lease::{Terms, check_runtime};
use crate::coordinate::write_once::WriteOnce;
use crate::error::{Error, ErrorKind, Result};
use crate::once::options::Dedup;
use crate::once::record::StoredRecord;
use crate::operation::Operation;
use crate::store::counter::Counter;
use crate::store::kv_store::KvStore;

/// What the record of a processed event holds.
const PROCESSED: &[u8] = b"1";

/// Marks an event as processed, at `{prefix}:{event_id}`, and tells whether it was before:
/// `false` once, `true` after.
///
/// This is *at most once*: the event is marked before it is handled, and a handler that then
/// fails has lost it. One command cannot tell what the record says: whatever another helper keeps
/// under the same key counts as processed. Where either matters use [`process_once`](crate::KvStoreExt::process_once).
///
/// Laws: `helpers::already_processed_is_false_once`, `faults::already_processed_is_false_once`.
///
/// # Errors
///
/// Those of the store, where the event may have been marked;
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad id or option.
///
/// # Cancel safety
///
/// The event is marked or not; what it answered is lost.
///
/// # Examples
///
/// ```
/// use derp_kv_core::{Dedup, KvStoreExt};
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// assert!(!kv.already_processed("evt_1", &Dedup::default()).await?);
/// assert!(kv.already_processed("evt_1", &Dedup::default()).await?);
/// # Ok(()) }
/// ```
pub async fn already_processed<S, K>(store: &S, event_id: K, options: &Dedup) -> Result<bool>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]>,
{
    let named = |error: Error| error.with_operation(Operation::AlreadyProcessed);
    options.check().map_err(named)?;
    let key = helper_key(WEBHOOK_PREFIX, &options.key_prefix, event_id.as_ref()).map_err(named)?;
    let first = store.set_nx(&key, PROCESSED, Some(options.ttl)).await.map_err(named)?;
    Ok(!first)
}

/// What [`process_once`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Processed<T> {
    /// The handler ran and returned this.
    Now(T),
    /// The event was processed before; the handler did not run.
    Before,
}

/// Runs `handler` for an event unless it was processed before: claim, run, mark.
///
/// # What is guaranteed, and what not
///
/// * While a handler runs nobody else's does, unless its process is stopped, or cut off from the
///   store, for longer than two thirds of `lock_ttl`, less a round trip. A handler that fails,
///   panics or is dropped leaves the event to be delivered again at once; one that dies, after
///   `lock_ttl`.
/// * After it returned `Ok`, no handler runs for this event while the record lives.
/// * This is *at least once*: a process that dies between the handler's effect and the mark
///   leaves an event that is handled again. Make the effect itself idempotent, or write the
///   event's id in the same transaction.
///
/// Laws: `helpers::process_once_runs_once`, `helpers::process_once_forgets_failures`,
/// `faults::process_once_runs_once`.
///
/// # Errors
///
/// `handler`'s own, those of the store, and [`InProgress`](crate::ErrorKind::InProgress) with
/// `retry_after` where another caller handles the event now: answer the sender with an error
/// so that it delivers again. An error with
/// [`may_have_applied`](crate::Error::may_have_applied) may mean that the handler ran and the
/// event could not be marked. [`Corrupt`](crate::ErrorKind::Corrupt) where another helper keeps a
/// record under this key, [`Timeout`](crate::ErrorKind::Timeout) where the store answers later than
/// `lock_ttl`, [`Unsupported`](crate::ErrorKind::Unsupported) outside of a tokio runtime,
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad id or option.
///
/// # Cancel safety
///
/// Dropped while the handler runs, it frees the claim. Dropped later, it still marks the
/// event.
///
/// # Examples
///
/// ```
/// use derp_kv_core::{Dedup, KvStoreExt, Processed};
/// # async fn ship() -> anyhow::Result<()> { Ok(()) }
/// # #[tokio::main] async fn main() -> anyhow::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// assert_eq!(kv.process_once("evt_1", &Dedup::default(), ship).await?, Processed::Now(()));
/// assert_eq!(kv.process_once("evt_1", &Dedup::default(), ship).await?, Processed::Before);
/// # Ok(()) }
/// ```
pub async fn process_once<S, K, T, F, Fut, E>(
    store: &S,
    event_id: K,
    options: &Dedup,
    handler: F,
) -> Result<Processed<T>, E>
where
    S: KvStore + Clone,
    K: AsRef<[u8]>,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<Error>,
{
    let named = |error: Error| error.with_operation(Operation::ProcessOnce);
    let lock_ttl = options.check().map_err(named)?;
    let key = helper_key(WEBHOOK_PREFIX, &options.key_prefix, event_id.as_ref()).map_err(named)?;
    let key = Bytes::copy_from_slice(&key);
    if let Some(record) = store.get(&key).await.map_err(named)? {
        return Ok(before(&record).map_err(named)?);
    }
    check_runtime().map_err(named)?;
    let lease = match claim(store, &key, Reading::default(), None, Terms::unlimited(lock_ttl))
        .await
        .map_err(named)?
    {
        Claim::Locked(lease) => lease,
        Claim::Found(record) => return Ok(before(&record.value).map_err(named)?),
        Claim::Held => {
            let message = "another caller handles this event";
            let error = Error::new(ErrorKind::InProgress, message);
            return Err(named(error.with_retry_after(lock_ttl)).into());
        }
        Claim::Late => return Err(named(too_slow()).into()),
    };
    let value = match handler().await {
        Ok(value) => value,
        Err(error) => {
            // Where the release fails, it goes on in the background.
            let _ = lease.release().await;
            return Err(error);
        }
    };
    let write = WriteOnce {
        key,
        value: Bytes::from_static(PROCESSED),
        // There is no smaller one.
        instead: None,
        ttl: options.ttl,
        pause: RETRY_DELAY,
        patience: lock_ttl,
    };
    write.write(store, lease).await.map_err(named)?;
    Ok(Processed::Now(value))
}

/// Reads a record that was there before. One that another helper wrote must not pass for an event
/// that was processed: the event would be lost. A number is a counter unless it is 1, which this
/// helper writes. Any other text marks the event, such as another library's word for it.
fn before<T>(record: &[u8]) -> Result<Processed<T>> {
    let is_counter = record != PROCESSED && Counter::parse(record).is_ok();
    if is_counter || StoredRecord::decode(record).is_ok() {
        let message = "the record under this event's key is another helper's: no two may have the \
                       same `key_prefix`";
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(Processed::Before)
}
