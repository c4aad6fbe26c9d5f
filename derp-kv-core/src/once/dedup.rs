use std::pin::pin;

use bytes::Bytes;

use crate::coordinate::claim::{Claim, claim, too_slow};
use crate::coordinate::entry::Reading;
use crate::coordinate::keys::{RETRY_DELAY, WEBHOOK_PREFIX, helper_key};
use crate::coordinate::lease::{Terms, check_runtime};
use crate::coordinate::write_once::{WriteOnce, Written};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::call::call;
use crate::observe::call_outcome::CallOutcome;
use crate::observe::raised::Raised;
use crate::once::attempts::{self, Attempt, Begun, Ongoing, Start};
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
    let event_id = event_id.as_ref();
    let work = pin!(async {
        options.check().map_err(named)?;
        let key = helper_key(WEBHOOK_PREFIX, &options.key_prefix, event_id).map_err(named)?;
        let first = store.set_nx(&key, PROCESSED, Some(options.ttl)).await.map_err(named)?;
        Ok(!first)
    });
    let outcome = |before: &bool| match before {
        true => CallOutcome::Duplicate,
        false => CallOutcome::Executed,
    };
    call(store.observer(), Operation::AlreadyProcessed, work, outcome).await
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
    /// it stops. [`process_forget`](crate::KvStoreExt::process_forget) lets it be handled after all.
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
///   along, runs no more than so many times: the error of the last attempt goes to its caller, and later
///   deliveries are [`GivenUp`](Processed::GivenUp). A process that dies between its attempt's mark and
///   the handler has used up one, so that 1 may lose an event.
///
/// Laws: `helpers::process_once_runs_once`, `helpers::process_once_forgets_failures`,
/// `helpers::process_once_gives_up`, `faults::process_once_runs_once`.
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
    is_marked: bool,
    handler: F,
) -> Result<Processed<T>, E>
where
    S: KvStore + Clone,
    F: FnOnce(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<Error>,
{
    let handler = |attempt| {
        let work = handler(attempt);
        async { work.await.map_err(Raised::Theirs) }
    };
    let work = pin!(found_or_handled(store, event_id, options, is_marked, handler));
    let outcome = |processed: &Processed<T>| match processed {
        Processed::Now(_) => CallOutcome::Executed,
        Processed::Before => CallOutcome::Duplicate,
        Processed::GivenUp { .. } => CallOutcome::GivenUp,
    };
    call(store.observer(), Operation::ProcessOnce, work, outcome).await.map_err(Raised::into_inner)
}

async fn found_or_handled<S, T, F, Fut, E>(
    store: &S,
    event_id: &[u8],
    options: &Dedup,
    is_marked: bool,
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
    let terms = Terms::unlimited(lock_ttl);
    let claimed = claim(store, &key, Reading::default(), None, terms, !is_marked).await;
    let lease = match claimed.map_err(named)? {
        Claim::Locked(lease) => lease,
        Claim::Found(record) => return Ok(before(&record.value).map_err(named)?),
        Claim::Held => {
            let message = "another caller handles this event";
            let error = Error::new(ErrorKind::InProgress, message);
            return Err(named(error.with_retry_after(lock_ttl)).into());
        }
        Claim::Late => return Err(named(too_slow()).into()),
    };
    let at_most = options.give_up_after;
    let on_abandoned = OnAbandoned::Rerun;
    let start = Start { key: &key, ttl: options.ttl, is_marked, on_abandoned, at_most };
    let ongoing = match start.begin(lease).await.map_err(named)? {
        Begun::Attempt(ongoing) => ongoing,
        Begun::Found(record) => return Ok(before(&record).map_err(named)?),
        Begun::Exhausted(ongoing) => {
            let attempts = ongoing.number();
            return match give_up(key, options, ongoing).await.map_err(named)? {
                Written::Before(record) => Ok(before(&record).map_err(named)?),
                Written::Now | Written::Instead(_) => Ok(Processed::GivenUp { attempts }),
            };
        }
    };
    match handler(ongoing.attempt()).await {
        Ok(value) => {
            let processed = Bytes::from_static(PROCESSED);
            ongoing.done(record(key, options, processed)).await.map_err(named)?;
            Ok(Processed::Now(value))
        }
        Err(error) if at_most.is_some_and(|at_most| ongoing.number() >= at_most) => {
            // Where this fails, the next delivery finds that many attempts, and gives up.
            let _ = give_up(key, options, ongoing).await;
            Err(error)
        }
        Err(error) => {
            ongoing.failed().await;
            Err(error)
        }
    }
}

async fn give_up(key: Bytes, options: &Dedup, last: Ongoing) -> Result<Written> {
    let gave_up = format!("{GAVE_UP}{}", last.number());
    last.done(record(key, options, gave_up.into())).await
}

/// The event's record, which ends its attempts.
fn record(key: Bytes, options: &Dedup, value: Bytes) -> WriteOnce {
    WriteOnce {
        key,
        value,
        // There is no smaller one.
        instead: None,
        ttl: options.ttl,
        pause: RETRY_DELAY,
        patience: options.lock_ttl,
    }
}

/// Forgets the attempts at an event, and that it was given up, so that the next delivery is handled. Tells
/// whether there was anything to forget.
///
/// An event that was processed stays so.
///
/// # Errors
///
/// [`InProgress`](ErrorKind::InProgress) with `retry_after` while a caller handles it;
/// [`Timeout`](ErrorKind::Timeout) where the store answers later than `lock_ttl`;
/// [`InvalidArgument`](ErrorKind::InvalidArgument) for a bad id or option; those of the store, where it may
/// have been forgotten.
///
/// # Cancel safety
///
/// It is forgotten, wholly or in part, or not; call it again.
///
/// # Examples
///
/// ```
/// use derp_kv_core::{Dedup, KvStoreExt};
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// assert!(!kv.process_forget("evt_1", &Dedup::default()).await?);
/// # Ok(()) }
/// ```
pub async fn process_forget<S, K>(store: &S, event_id: K, options: &Dedup) -> Result<bool>
where
    S: KvStore + Clone,
    K: AsRef<[u8]>,
{
    let work = pin!(forget(store, event_id.as_ref(), options));
    call(store.observer(), Operation::ProcessForget, work, |_| CallOutcome::Done).await
}

async fn forget<S>(store: &S, event_id: &[u8], options: &Dedup) -> Result<bool>
where
    S: KvStore + Clone,
{
    let named = |error: Error| error.with_operation(Operation::ProcessForget);
    let lock_ttl = options.check().map_err(named)?;
    let key = helper_key(WEBHOOK_PREFIX, &options.key_prefix, event_id).map_err(named)?;
    let lease = attempts::lease(store, &key, lock_ttl).await.map_err(named)?;
    let mut forgotten = attempts::forget(&key, &lease).await.map_err(named)?;
    if let Some(record) = store.get(&key).await.map_err(named)?
        && gave_up_after(&record).is_some()
    {
        forgotten |= store.compare_and_delete(&key, &record).await.map_err(named)?;
    }
    // Where the release fails, it goes on in the background.
    let _ = lease.release().await;
    Ok(forgotten)
}

/// Reads a record that was there before. One that another helper wrote must not pass for an event
/// that was processed: the event would be lost. A number is a counter unless it is 1, which this
/// helper writes. Any other text marks the event, such as another library's word for it.
fn before<T>(record: &[u8]) -> Result<Processed<T>> {
    let is_counter = record != PROCESSED && Counter::parse(record).is_ok();
    if let Some(attempts) = gave_up_after(record) {
        return Ok(Processed::GivenUp { attempts });
    }
    if is_counter || StoredRecord::decode(record).is_ok() {
        let message = "the record under this event's key is another helper's: no two may have the \
                       same `key_prefix`";
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(Processed::Before)
}

/// After how many attempts the event of this record was given up.
fn gave_up_after(record: &[u8]) -> Option<u32> {
    std::str::from_utf8(record).ok()?.strip_prefix(GAVE_UP)?.parse().ok()
}
