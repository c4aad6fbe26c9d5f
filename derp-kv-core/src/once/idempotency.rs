use std::pin::pin;

use bytes::Bytes;
use tokio::time::Instant;

use crate::coordinate::contention::{Contention, Patience, Turn};
use crate::coordinate::entry::Reading;
use crate::coordinate::keys::{IDEMPOTENCY_PREFIX, helper_key};
use crate::coordinate::lease::{Terms, check_runtime};
use crate::coordinate::nesting::computing;
use crate::coordinate::work::Lead;
use crate::coordinate::write_once::{WriteOnce, Written};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::call::call;
use crate::observe::call_outcome::CallOutcome;
use crate::observe::raised::Raised;
use crate::once::answer::Answer;
use crate::once::attempts::{self, Attempt, Begun, Ongoing, Start};
use crate::once::options::{Idempotency, OnAbandoned};
use crate::once::record::{Outcome, StoredRecord, omitted, refused_by_store};
use crate::operation::Operation;
use crate::singleflight::flights::Purpose;
use crate::store::kv_store::KvStore;

const OPERATION: Operation = Operation::IdempotentExecute;

/// Runs `compute` once for each `key` while its record lives, and gives everybody its outcome.
///
/// The record at `{prefix}:{key}` is the JSON `{"status_code":201,"body":…}`, and of an answer that
/// is not kept `{"status_code":201,"body":null,"omitted":true}`. To keep a whole response, with its own
/// status code and headers, let the work answer with a [`Reply`](crate::Reply).
///
/// # What is guaranteed, and what not
///
/// * The work runs once, however slow it is, however many callers and processes there are. A
///   duplicate waits up to `lock_ttl` for the outcome, then gets
///   [`InProgress`](crate::ErrorKind::InProgress); it never runs the work as well.
/// * With [`fingerprint`](Idempotency::fingerprint), the same key with another request is
///   [`KeyReused`](crate::ErrorKind::KeyReused), while the first is under way and after.
/// * Only `Ok` is kept, and of [replies](crate::Reply) those that are definitive. After `Err`, another
///   reply, a panic or a dropped call the key is free again; after a crash, in `lock_ttl`. Work that
///   failed, or whose reply is not kept, gives all duplicates that waited for it in this process
///   [`Failing`](crate::ErrorKind::Failing) at once; a call that is dropped or panics leaves the work to
///   the newest of them.
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
/// * With [`OnAbandoned::Reject`] it is not run again in these cases, nor after a crash, a panic or a
///   dropped call: whoever comes later gets [`Abandoned`](crate::ErrorKind::Abandoned), and the work
///   does not run before [`idempotent_forget`](crate::KvStoreExt::idempotent_forget). What is left is a
///   server that forgets acknowledged writes, and work that goes on for longer than
///   [`ttl`](Idempotency::ttl). The first call then sends two commands more, which leave and remove the
///   marker `{prefix}:{key}:attempt`. A process that dies as the work begins or ends, or while it cannot
///   reach the store, may let the attempt seem abandoned.
///
/// Laws: `helpers::idempotent_execute_runs_once`, `helpers::idempotent_execute_replays`,
/// `helpers::idempotent_execute_reports_progress`,
/// `helpers::idempotent_execute_refuses_another_request`,
/// `helpers::idempotent_execute_frees_failures`,
/// `helpers::idempotent_execute_keeps_corrupt_records`,
/// `helpers::idempotent_execute_replays_replies`,
/// `helpers::idempotent_execute_rejects_the_abandoned`,
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
/// * [`Abandoned`](crate::ErrorKind::Abandoned), not transient, with [`OnAbandoned::Reject`],
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
/// Dropped during `compute`, it stops the work and frees the key; with [`OnAbandoned::Reject`] it has
/// abandoned it. Dropped later, it still writes the record.
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
    T: Answer,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<Error>,
{
    let is_marked = options.on_abandoned == OnAbandoned::Reject;
    execute(store, key.as_ref(), options, is_marked, |_| compute()).await
}

/// [`idempotent_execute`] for work that asks which attempt it is, and watches its lease: see [`Attempt`].
///
/// The attempts are counted whatever [`on_abandoned`](Idempotency::on_abandoned) says, in two commands
/// more for each first call.
///
/// # Errors
///
/// As [`idempotent_execute`].
///
/// # Cancel safety
///
/// As [`idempotent_execute`].
pub async fn idempotent_execute_with<S, K, T, F, Fut, E>(
    store: &S,
    key: K,
    options: &Idempotency,
    compute: F,
) -> Result<Outcome<T>, E>
where
    S: KvStore + Clone,
    K: AsRef<[u8]>,
    T: Answer,
    F: FnOnce(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<Error>,
{
    execute(store, key.as_ref(), options, true, compute).await
}

/// Forgets the attempts at `key`, so that the next call does the work although one was
/// [abandoned](OnAbandoned::Reject). Tells whether there were any.
///
/// Look first at what the attempt has done. A record is not forgotten: work that is known to be done stays
/// done.
///
/// # Errors
///
/// [`InProgress`](ErrorKind::InProgress) with `retry_after` while somebody holds the key's lease;
/// [`Timeout`](ErrorKind::Timeout) where the store answers later than `lock_ttl`;
/// [`InvalidArgument`](ErrorKind::InvalidArgument) for a bad key or option; those of the store, where they
/// may have been forgotten.
///
/// # Cancel safety
///
/// They are forgotten or not.
///
/// # Examples
///
/// ```
/// use derp_kv_core::{Idempotency, KvStoreExt, OnAbandoned};
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let options = Idempotency::default().on_abandoned(OnAbandoned::Reject);
/// assert!(!kv.idempotent_forget("a-key", &options).await?);
/// # Ok(()) }
/// ```
pub async fn idempotent_forget<S, K>(store: &S, key: K, options: &Idempotency) -> Result<bool>
where
    S: KvStore + Clone,
    K: AsRef<[u8]>,
{
    let work = pin!(forget(store, key.as_ref(), options));
    call(store.observer(), Operation::IdempotentForget, work, |_| CallOutcome::Done).await
}

async fn forget<S>(store: &S, key: &[u8], options: &Idempotency) -> Result<bool>
where
    S: KvStore + Clone,
{
    let named = |error: Error| error.with_operation(Operation::IdempotentForget);
    let (lock_ttl, _) = options.check().map_err(named)?;
    let key = helper_key(IDEMPOTENCY_PREFIX, &options.key_prefix, key).map_err(named)?;
    let lease = attempts::lease(store, &key, lock_ttl).await.map_err(named)?;
    let forgotten = attempts::forget(&key, &lease).await.map_err(named)?;
    // Where the release fails, it goes on in the background.
    let _ = lease.release().await;
    Ok(forgotten)
}

/// [`idempotent_execute_with`], whose attempts leave a mark if `is_marked`.
pub(crate) async fn execute<S, T, F, Fut, E>(
    store: &S,
    key: &[u8],
    options: &Idempotency,
    is_marked: bool,
    compute: F,
) -> Result<Outcome<T>, E>
where
    S: KvStore + Clone,
    T: Answer,
    F: FnOnce(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<Error>,
{
    let compute = |attempt| {
        let work = compute(attempt);
        async { work.await.map_err(Raised::Theirs) }
    };
    let work = pin!(replayed_or_run(store, key, options, is_marked, compute));
    let outcome = |outcome: &Outcome<T>| match outcome.is_replay {
        true => CallOutcome::Replayed,
        false => CallOutcome::Executed,
    };
    call(store.observer(), OPERATION, work, outcome).await.map_err(Raised::into_inner)
}

async fn replayed_or_run<S, T, F, Fut, E>(
    store: &S,
    key: &[u8],
    options: &Idempotency,
    is_marked: bool,
    compute: F,
) -> Result<Outcome<T>, E>
where
    S: KvStore + Clone,
    T: Answer,
    F: FnOnce(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<Error>,
{
    let named = |error: Error| error.with_operation(OPERATION);
    let (lock_ttl, retry_delay) = options.check().map_err(named)?;
    let key = helper_key(IDEMPOTENCY_PREFIX, &options.key_prefix, key).map_err(named)?;
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
        looks: !is_marked,
    };
    let mut lead = match contention.turn().await {
        Turn::Lead(lead) => lead,
        Turn::Found(record) | Turn::Landed(record) => return Ok(replay(options, &record.value)?),
        // Nobody runs the work beside a holder of its key.
        Turn::Beside(_) => return Err(contention.in_progress().into()),
        Turn::Refused(error) => return Err(error.into()),
    };
    // The lease of work that is not marked stays with the lead: where this call is dropped, both go to
    // another caller.
    let (attempt, marked) = if is_marked {
        match begin(&mut lead, &key, options).await.map_err(named)? {
            Begun::Found(record) => {
                lead.land(record.clone());
                return Ok(replay(options, &record)?);
            }
            Begun::Attempt(ongoing) | Begun::Exhausted(ongoing) => {
                (ongoing.attempt(), Some(ongoing))
            }
        }
    } else {
        (Attempt::unmarked(lead.hold().ok_or_else(without_lease)?), None)
    };
    match computing(lead.flight(), compute(attempt)).await {
        Ok(body) if body.is_final(options) => {
            let ongoing = match marked {
                Some(ongoing) => ongoing,
                None => Ongoing::unmarked(lead.end().ok_or_else(without_lease)?),
            };
            Ok(record(&key, options, &lead, ongoing, body).await?)
        }
        other => {
            lead.fail(None).await;
            if let Some(ongoing) = marked {
                ongoing.failed().await;
            }
            let body = other?;
            let status_code = body.status_code(options);
            Ok(Outcome::new(body, status_code, false))
        }
    }
}

/// Begins an attempt that leaves a marker.
async fn begin(lead: &mut Lead, key: &Bytes, options: &Idempotency) -> Result<Begun> {
    let Idempotency { ttl, on_abandoned, .. } = *options;
    let start = Start { key, ttl, is_marked: true, on_abandoned, at_most: None };
    let begun = start.begin(lead.end().ok_or_else(without_lease)?).await;
    if let Err(error) = &begun {
        lead.break_up(error);
    }
    begun
}

/// Writes the record of work that is done.
async fn record<T: Answer>(
    key: &Bytes,
    options: &Idempotency,
    lead: &Lead,
    ongoing: Ongoing,
    body: T,
) -> Result<Outcome<T>> {
    let status_code = body.status_code(options);
    let small = omitted(status_code, options);
    let (value, instead, answer) = match body.encode(options) {
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
    match ongoing.done(write).await {
        Ok(Written::Now) => {
            lead.land(value);
            answer.map(|body| Outcome::new(body, status_code, false))
        }
        Ok(Written::Instead(refusal)) => {
            lead.land(small);
            Err(refused_by_store(status_code, refusal))
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

fn without_lease() -> Error {
    Error::new(ErrorKind::Backend, "the work ended without its lease").with_operation(OPERATION)
}

fn replay<T: Answer>(options: &Idempotency, record: &[u8]) -> Result<Outcome<T>> {
    let stored = StoredRecord::decode(record)?;
    // Before the body, which of another request may be of another type.
    match (options.fingerprint.as_deref(), stored.fingerprint.as_deref()) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            let message = "this idempotency key was used for another request";
            Err(Error::new(ErrorKind::KeyReused, message).with_operation(OPERATION))
        }
        _ => {
            stored.check_kept()?;
            Ok(Outcome::new(T::decode(&stored)?, stored.status_code, true))
        }
    }
}
