use bytes::Bytes;

use crate::coordinate::claim::{Claim, claim, too_slow};
use crate::coordinate::entry::Reading;
use crate::coordinate::keys::{RETRY_DELAY, WEBHOOK_PREFIX, helper_key};
use crate::coordinate::lease::{Lease, Terms, check_runtime};
use crate::coordinate::run_to_end::RunToEnd;
use crate::coordinate::write_once::WriteOnce;
use crate::error::{Error, ErrorKind, Result};
use crate::once::attempts::{Attempt, Marker, Start};
use crate::once::options::{Dedup, OnAbandoned};
use crate::once::record::StoredRecord;
use crate::operation::Operation;
use crate::store::counter::Counter;
use crate::store::kv_store::KvStore;

/// What the record of a processed event holds.
const PROCESSED: &[u8] = b"1";

/// What the record of an event that was given up begins with; the number of attempts follows.
const GAVE_UP: &str = "gave_up:";

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
    /// The handler did not run, for so many attempts have failed or were abandoned:
    /// [`give_up_after`](Dedup::give_up_after). Answer the sender as if it had been processed, so that
    /// it stops. Delete the event's record to let it be handled after all.
    GivenUp {
        /// How many there were.
        attempts: u32,
    },
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
/// * With [`give_up_after`](Dedup::give_up_after), a handler that fails each time, or takes its process
///   along, runs so many times and no more: the error of the last attempt goes to its caller, and later
///   deliveries are [`GivenUp`](Processed::GivenUp).
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
    process(store, event_id.as_ref(), options, options.give_up_after.is_some(), |_| handler()).await
}

/// [`process_once`] for a handler that asks which attempt it is, and watches its lease: see [`Attempt`].
///
/// The attempts are counted, in two commands more for each first delivery.
///
/// # Errors
///
/// As [`process_once`].
///
/// # Cancel safety
///
/// As [`process_once`].
pub async fn process_once_with<S, K, T, F, Fut, E>(
    store: &S,
    event_id: K,
    options: &Dedup,
    handler: F,
) -> Result<Processed<T>, E>
where
    S: KvStore + Clone,
    K: AsRef<[u8]>,
    F: FnOnce(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<Error>,
{
    process(store, event_id.as_ref(), options, true, handler).await
}

async fn process<S, T, F, Fut, E>(
    store: &S,
    event_id: &[u8],
    options: &Dedup,
    is_counted: bool,
    handler: F,
) -> Result<Processed<T>, E>
where
    S: KvStore + Clone,
    F: FnOnce(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<Error>,
{
    let named = |error: Error| error.with_operation(Operation::ProcessOnce);
    let lock_ttl = options.check().map_err(named)?;
    let key = helper_key(WEBHOOK_PREFIX, &options.key_prefix, event_id).map_err(named)?;
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
    let (lease, attempt, marker) = begin(lease, &key, options, is_counted).await.map_err(named)?;
    let number = attempt.number();
    let is_last = |number| options.give_up_after.is_some_and(|last| number >= last);
    if is_last(number - 1) {
        let attempts = number - 1;
        give_up(store, key, options, lease, marker, attempts).await.map_err(named)?;
        return Ok(Processed::GivenUp { attempts });
    }
    let value = match handler(attempt).await {
        Ok(value) => value,
        Err(error) if is_last(number) => {
            // Where this fails, the next delivery finds that many attempts, and gives up.
            let _ = give_up(store, key, options, lease, marker, number).await;
            return Err(error);
        }
        Err(error) => {
            failed(lease, marker).await;
            return Err(error);
        }
    };
    mark(store, key, options, lease, marker, Bytes::from_static(PROCESSED)).await.map_err(named)?;
    Ok(Processed::Now(value))
}

/// Begins an attempt at the event.
async fn begin(
    lease: Lease,
    key: &Bytes,
    options: &Dedup,
    is_counted: bool,
) -> Result<(Lease, Attempt, Option<Marker>)> {
    let hold = lease.hold();
    let start = Start { key, ttl: options.ttl, is_counted, on_abandoned: OnAbandoned::Rerun };
    match start.begin(lease, hold).await {
        Ok(begun) => Ok(begun),
        Err((lease, error)) => {
            if let Some(lease) = lease {
                // Where the release fails, it goes on in the background.
                let _ = lease.release().await;
            }
            Err(error)
        }
    }
}

/// Ends an attempt that failed, and is not the last one: the event is free for its next delivery.
async fn failed(lease: Lease, marker: Option<Marker>) {
    // Where the release fails, it goes on in the background.
    match marker {
        None => drop(lease.release().await),
        Some(marker) => {
            RunToEnd::new(async move {
                marker.close().await;
                drop(lease.release().await);
            })
            .await;
        }
    }
}

async fn give_up<S: KvStore + Clone>(
    store: &S,
    key: Bytes,
    options: &Dedup,
    lease: Lease,
    marker: Option<Marker>,
    attempts: u32,
) -> Result<()> {
    let record = Bytes::from(format!("{GAVE_UP}{attempts}"));
    mark(store, key, options, lease, marker, record).await
}

/// Writes the event's record, which ends its attempts.
async fn mark<S: KvStore + Clone>(
    store: &S,
    key: Bytes,
    options: &Dedup,
    lease: Lease,
    marker: Option<Marker>,
    record: Bytes,
) -> Result<()> {
    let write = WriteOnce {
        key,
        value: record,
        // There is no smaller one.
        instead: None,
        ttl: options.ttl,
        pause: RETRY_DELAY,
        patience: options.lock_ttl,
    };
    let Some(marker) = marker else {
        return write.write(store, lease).await.map(drop);
    };
    let store = store.clone();
    RunToEnd::new(async move {
        write.write(&store, lease).await?;
        marker.remove().await;
        Ok(())
    })
    .await
}

/// Reads a record that was there before. One that another helper wrote must not pass for an event
/// that was processed: the event would be lost. A number is a counter unless it is 1, which this
/// helper writes. Any other text marks the event, such as another library's word for it.
fn before<T>(record: &[u8]) -> Result<Processed<T>> {
    let is_counter = record != PROCESSED && Counter::parse(record).is_ok();
    let given_up = std::str::from_utf8(record).ok().and_then(|text| text.strip_prefix(GAVE_UP));
    if let Some(attempts) = given_up.and_then(|attempts| attempts.parse().ok()) {
        return Ok(Processed::GivenUp { attempts });
    }
    if is_counter || StoredRecord::decode(record).is_ok() {
        let message = "the record under this event's key is another helper's: no two may have the \
                       same `key_prefix`";
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(Processed::Before)
}
