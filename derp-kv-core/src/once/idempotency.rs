use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::coordinate::contention::{Contention, Patience, Turn};
use crate::coordinate::entry::Reading;
use crate::coordinate::keys::{IDEMPOTENCY_PREFIX, helper_key};
use crate::coordinate::lease::{Terms, check_runtime};
use crate::coordinate::work::Lead;
use crate::coordinate::write_once::{WriteOnce, Written};
use crate::error::{Error, ErrorKind, Result};
use crate::once::options::Idempotency;
use crate::once::record::{Outcome, StoredRecord, encode, omitted, refused_by_store};
use crate::operation::Operation;
use crate::singleflight::flights::Purpose;
use crate::store::kv_store::KvStore;

const OPERATION: Operation = Operation::IdempotentExecute;

/// Runs `compute` once for each `key` while its record lives, and gives everybody its outcome.
///
/// The record at `{prefix}:{key}` is the JSON `{"status_code":201,"body":…}`, and of an answer that
/// is not kept `{"status_code":201,"body":null,"omitted":true}`.
///
/// # What is guaranteed, and what not
///
/// * The work runs once, however slow it is, however many callers and processes there are. A
///   duplicate waits up to `lock_ttl` for the outcome, then gets
///   [`InProgress`](crate::ErrorKind::InProgress); it never runs the work as well.
/// * With [`fingerprint`](Idempotency::fingerprint), the same key with another request is
///   [`KeyReused`](crate::ErrorKind::KeyReused), while the first is under way and after.
/// * Only `Ok` is kept. After `Err`, a panic or a dropped call the key is free again; after a
///   crash, in `lock_ttl`. Work that failed gives all duplicates that waited for it in this process
///   [`Failing`](crate::ErrorKind::Failing) at once, with nothing kept; a call that is dropped or
///   panics leaves the work to the newest of them.
/// * A replay is what the first call returned. The body is decoded from its record once before that
///   is written, and compared: what JSON cannot hold or give back is found on the first call, and
///   not by a client that tries again. Compared is what the two tell a serializer, without the
///   order of maps and sequences; a body that is serialized otherwise each time is not compared.
/// * Work that is done is not done again because its answer cannot be kept: where its body is none
///   that JSON can replay, or the store refuses the record, as too large or for want of room, a
///   small record takes its place, with the status code. This caller and all later ones get
///   [`NotKept`](crate::ErrorKind::NotKept).
/// * A record is never overwritten. A holder that lost its lease and finds another's record
///   returns that one.
/// * A holder whose process is stopped, or cut off from the store, for longer than two thirds of
///   `lock_ttl`, less a round trip, while it works, and a server that forgets an acknowledged write
///   in a failover, can let the work run twice. Where that must not be, make its effect conditional
///   on the key itself: a unique constraint, or the same idempotency key passed on.
/// * Where the work was done and not even the small record can be written within `lock_ttl`, the
///   caller gets an error with [`may_have_applied`](crate::Error::may_have_applied), and a later
///   call, or a duplicate that waits, runs it again after `lock_ttl`.
///
/// Laws: `helpers::idempotent_execute_runs_once`, `helpers::idempotent_execute_replays`,
/// `helpers::idempotent_execute_reports_progress`,
/// `helpers::idempotent_execute_refuses_another_request`,
/// `helpers::idempotent_execute_frees_failures`,
/// `helpers::idempotent_execute_keeps_corrupt_records`,
/// `faults::idempotent_execute_runs_once`.
///
/// # A client that goes away
///
/// A web framework drops a handler when its client disconnects, and dropping this call stops
/// the work. To let it finish and keep its outcome for the client's next try, spawn the whole
/// call:
///
/// ```
/// use derp_kv_core::{Error, Idempotency, KvStoreExt, Outcome};
/// # use derp_kv_core::KvStore;
/// # async fn create_order() -> Result<u64, Error> { Ok(1) }
///
/// async fn handler<S: KvStore + Clone>(kv: S, key: String) -> Result<Outcome<u64>, Error> {
///     let call = async move {
///         kv.idempotent_execute(key, &Idempotency::default(), create_order).await
///     };
///     tokio::spawn(call).await.expect("the call does not panic")
/// }
/// # #[tokio::main] async fn main() -> Result<(), Error> {
/// # handler(derp_kv_memory::MemoryStore::new(), "k".into()).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// `compute`'s own, those of the store, and
///
/// * [`InProgress`](crate::ErrorKind::InProgress) with `retry_after` (HTTP 409),
/// * [`KeyReused`](crate::ErrorKind::KeyReused) (HTTP 422),
/// * [`Corrupt`](crate::ErrorKind::Corrupt) for a record that cannot be decoded, which stays,
/// * [`Failing`](crate::ErrorKind::Failing) where the work of the caller that this one waited for
///   failed,
/// * [`NotKept`](crate::ErrorKind::NotKept) with the
///   [`status_code`](crate::Error::status_code) where the work is done, now or before, and its
///   answer could not be kept; its source says what JSON or the store had against it, without
///   values,
/// * [`Unsupported`](crate::ErrorKind::Unsupported) outside of a tokio runtime, whose timers must be
///   enabled,
/// * [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a bad key or option, before
///   any work.
///
/// # Cancel safety
///
/// Dropped during `compute`, it stops the work and frees the key. Dropped later, it still
/// writes the record.
///
/// # Examples
///
/// ```
/// use derp_kv_core::{Idempotency, KvStoreExt};
/// # async fn create_order() -> anyhow::Result<u64> { Ok(1001) }
/// # #[tokio::main] async fn main() -> anyhow::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let options = Idempotency::default().status_code(201).fingerprint(r#"{"item":42}"#);
/// let first = kv.idempotent_execute("a-key", &options, create_order).await?;
/// let again = kv.idempotent_execute("a-key", &options, create_order).await?;
/// assert_eq!((first.body, first.status_code, first.is_replay), (1001, 201, false));
/// assert_eq!((again.body, again.status_code, again.is_replay), (1001, 201, true));
/// # Ok(()) }
/// ```
pub async fn idempotent_execute<S, K, T, F, Fut, E>(
    store: &S,
    key: K,
    options: &Idempotency,
    compute: F,
) -> Result<Outcome<T>, E>
where
    S: KvStore + Clone,
    K: AsRef<[u8]>,
    T: Serialize + DeserializeOwned,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<Error>,
{
    let named = |error: Error| error.with_operation(OPERATION);
    let (lock_ttl, retry_delay) = options.check().map_err(named)?;
    let key = helper_key(IDEMPOTENCY_PREFIX, &options.key_prefix, key.as_ref()).map_err(named)?;
    let key = Bytes::copy_from_slice(&key);
    check_runtime().map_err(named)?;
    let contention = Contention {
        store,
        key: &key,
        reading: Reading::default(),
        operation: OPERATION,
        purpose: Purpose::Idempotent,
        tag: options.fingerprint.as_deref(),
        lease: Terms::unlimited(lock_ttl),
        retry_delay,
        patience: Patience::Until(Instant::now() + lock_ttl),
    };
    match contention.turn().await {
        Turn::Found(record) => Ok(replay(options, &record.value)?),
        Turn::Landed(record) => Ok(replay(options, &record.value)?),
        Turn::Lead(mut lead) => {
            let body = lead.work(compute()).await?;
            Ok(record(store, &key, options, &mut lead, body).await?)
        }
        // Nobody runs the work beside a holder of its key.
        Turn::Beside(_) => Err(contention.in_progress().into()),
        Turn::Refused(error) => Err(error.into()),
    }
}

/// Writes the record of work that is done.
async fn record<S, T>(
    store: &S,
    key: &Bytes,
    options: &Idempotency,
    lead: &mut Lead,
    body: T,
) -> Result<Outcome<T>>
where
    S: KvStore + Clone,
    T: Serialize + DeserializeOwned,
{
    let Some(lease) = lead.end() else {
        let message = "the work ended without its lease";
        return Err(Error::new(ErrorKind::Backend, message).with_operation(OPERATION));
    };
    let small = omitted(options);
    let (value, instead, answer) = match encode(&body, options) {
        Ok(record) => (record, Some(small.clone()), Ok(body)),
        Err(error) => (small.clone(), None, Err(error)),
    };
    let write = WriteOnce {
        key: key.clone(),
        value: value.clone(),
        instead,
        ttl: options.ttl,
        pause: options.retry_delay,
        patience: options.lock_ttl,
    };
    match write.write(store, lease).await {
        Ok(Written::Now) => {
            lead.land(value);
            answer.map(|body| Outcome { body, status_code: options.status_code, is_replay: false })
        }
        Ok(Written::Instead(refusal)) => {
            lead.land(small);
            Err(refused_by_store(options, refusal))
        }
        // A successor took over meanwhile, and its record is the one that counts.
        Ok(Written::Before(record)) => {
            let outcome = replay(options, &record);
            lead.land(record);
            outcome
        }
        Err(error) => {
            lead.break_up(&error);
            Err(error.with_operation(OPERATION))
        }
    }
}

fn replay<T: DeserializeOwned>(options: &Idempotency, record: &[u8]) -> Result<Outcome<T>> {
    let stored = StoredRecord::decode(record)?;
    // Before the body, which of another request may be of another type.
    match (options.fingerprint.as_deref(), stored.fingerprint.as_deref()) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            let message = "this idempotency key was used for another request";
            Err(Error::new(ErrorKind::KeyReused, message).with_operation(OPERATION))
        }
        _ => stored.outcome(),
    }
}
