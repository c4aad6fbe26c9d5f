use std::time::Duration;

use bytes::Bytes;

use crate::cache::options::{GuardedGet, OnStoreError};
use crate::coordinate::contention::{Contention, Patience, Turn};
use crate::coordinate::keys::check_cache_key;
use crate::coordinate::lease::Lease;
use crate::coordinate::run_to_end::RunToEnd;
use crate::coordinate::work::Lead;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;
use crate::singleflight::flights::Purpose;
use crate::store::kv_store::KvStore;

const OPERATION: Operation = Operation::GuardedGet;

/// Reads `key`, or computes its value once for everybody and keeps it.
///
/// It is a cache that does not stampede: of all callers that miss one key, in any number of
/// processes, one computes, under a lease that it renews; the others get its value.
///
/// ```text
///  caller A                    store                       caller B, elsewhere
///     | get k: nothing           |                              |
///     | set_nx k:lock tokenA --> |                              |
///     | get k: still nothing     |            get k: nothing    |
///     | computes,                | <-- set_nx k:lock: refused   |
///     | renews k:lock            | <-- wait_for_change k        |
///     | set k value, ttl ------> |                              |
///     | compare_and_delete lock  |            changed: get k -> | value
///
///  caller A                    store                       caller B, elsewhere
///     | set_nx k:lock tokenA --> |                              |
///     | crashes                  | <-- set_nx k:lock: refused   |
///                                | k:lock expires after lock_ttl|
///                                | <-- set_nx k:lock tokenB     | the one successor computes
/// ```
///
/// # What is guaranteed, and what not
///
/// * A hit is one command, an uncontended miss at most five. Callers in one process share one flight
///   (singleflight): one of them looks at the store for all, one computes.
/// * While a living holder computes, nobody else does, for `lock_ttl`. After that one more caller of
///   each process computes as well, and after each further `lock_ttl` yet another: no caller waits
///   without bound behind another one's code. What is computed beside a holder goes to the callers
///   of its process and is not stored. So choose `lock_ttl` above a computation's usual time. Behind
///   a holder in another process it may take a third of `lock_ttl` more until that one is known to
///   live.
/// * A holder that crashed has exactly one successor, when its lock expires. One whose future is
///   dropped or panics leaves its lease to the newest caller that waits in its process, at once.
/// * The newest caller goes first wherever one of several can go on: it has the most time left.
/// * A computation that fails is not cached. Its error goes to its own caller, and every other caller
///   that waited for it in this process gets [`Failing`](crate::ErrorKind::Failing) at once, so that
///   N callers of a failing origin make one computation. The lock is free then, and the next caller
///   computes. "Not found" is better made a value: an absence that is cached is asked for once.
/// * Those who wait see a value that anybody stores within `retry_delay`.
/// * [`invalidate`](crate::KvStoreExt::invalidate) and [`refresh`](crate::KvStoreExt::refresh) win
///   over computations that began before, but for a round trip: a holder that finds its lease gone
///   takes its value back. A holder that dies in between, or cannot reach the store, leaves it to
///   its TTL. What was computed beside a holder is never stored, but a caller of its process that
///   waits for it may get it, also after an invalidation in another process. A plain [`set`](KvStore::set) or [`delete`](KvStore::delete) does **not** stop a
///   computation under way: its older value is stored over the newer one, or comes back.
/// * Called for the same key inside `compute`, in the same task, it computes at once, where the store
///   has [`flights`](KvStore::flights). In a task that `compute` spawned and waits for, and on a store
///   without, it does so after `lock_ttl` for each depth.
/// * Inside of a [`lock`](crate::KvStoreExt::lock) of the same key it never gets the lease, which is
///   the same record: it waits for `lock_ttl`, computes, and stores nothing. Lock another key.
/// * A store that has no room for the lock or the value, and one whose answers come later than
///   `lock_ttl`, do not fail the call: the value is computed and not stored, and the store's
///   [`Observer`](crate::Observer) hears of it.
///
/// Laws: `helpers::guarded_get_keeps_what_it_computes`, `helpers::guarded_get_computes_once`,
/// `helpers::guarded_get_keeps_no_error`, `helpers::guarded_get_survives_a_panic`,
/// `helpers::guarded_get_survives_dropped_callers`, `helpers::guarded_get_succeeds_the_dead`,
/// `herd::survives_a_stall`, `herd::waits_for_no_hung_computation`, `herd::nests`,
/// `herd::sees_what_is_stored`, `herd::survives_a_slow_store`, `faults::guarded_get_goes_on`.
///
/// # Errors
///
/// `compute`'s own, and
///
/// * those of reading and locking; see [`OnStoreError`](crate::OnStoreError). That a computed value
///   cannot be kept is no error.
/// * [`Failing`](crate::ErrorKind::Failing) where the computation of another caller failed.
/// * [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a reserved key and an option out of
///   range, before anything is done.
/// * [`Unsupported`](crate::ErrorKind::Unsupported) on a miss outside of a tokio runtime. Its timers
///   must be enabled, or tokio panics and says so.
///
/// # Cancel safety
///
/// Drop it at any time: what it had goes to the next caller, and the lock of the last one is freed.
/// The computation itself stops with its caller.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use derp_kv_core::{GuardedGet, KvStoreExt};
/// # async fn fetch_from_db(_: u32) -> anyhow::Result<String> { Ok("kettle".into()) }
/// # #[tokio::main] async fn main() -> anyhow::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// const PRODUCTS: GuardedGet = GuardedGet::new(Duration::from_secs(300));
/// let page = kv.guarded_get(b"product:42", &PRODUCTS, || fetch_from_db(42)).await?;
/// assert_eq!(page, "kettle");
/// # Ok(()) }
/// ```
pub async fn guarded_get<S, K, F, Fut, V, E>(
    store: &S,
    key: K,
    options: &GuardedGet,
    compute: F,
) -> Result<Bytes, E>
where
    S: KvStore + Clone,
    K: AsRef<[u8]>,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<V, E>>,
    V: Into<Bytes>,
    E: From<Error>,
{
    let key = key.as_ref();
    let options = check_cache_key(key)
        .and_then(|()| options.checked())
        .map_err(|error| error.with_operation(OPERATION))?;
    let contention = Contention {
        store,
        key,
        operation: OPERATION,
        purpose: Purpose::Cached,
        tag: None,
        lock_ttl: options.lock_ttl,
        retry_delay: options.retry_delay,
        patience: Patience::ThenBeside {
            although_the_store_fails: options.on_store_error == OnStoreError::Compute,
        },
    };
    match contention.turn().await {
        Turn::Found(value) => Ok(value),
        Turn::Lead(mut lead) => {
            let value: Bytes = lead.work(compute()).await?.into();
            let kept = keep(&contention, &mut lead, options.ttl, &value).await;
            if kept {
                lead.land(value.clone());
            }
            // Where the lease was lost, the value may be older than what is there by now: the
            // caller who computed it gets it, and the others look for themselves.
            Ok(value)
        }
        Turn::Beside(beside) => {
            let unkept = beside.unkept();
            let value = beside.work(async { Ok::<Bytes, E>(compute().await?.into()) }).await?;
            if let Some(why) = unkept {
                contention.not_kept(why);
            }
            Ok(value)
        }
        Turn::Refused(error) => Err(error.into()),
    }
}

/// Stores the value, unless the lease is lost or the value out of date, and frees the lock. Tells
/// whether the lease was held to the end.
async fn keep<S: KvStore + Clone>(
    contention: &Contention<'_, S>,
    lead: &mut Lead,
    ttl: Option<Duration>,
    value: &Bytes,
) -> bool {
    let Some(lease) = lead.end() else { return false };
    let outdated = lead.is_outdated();
    let store = contention.store.clone();
    let (key, value) = (Bytes::copy_from_slice(contention.key), value.clone());
    // Half of this must not stay undone when the caller goes away.
    let storing = async move {
        if outdated {
            let _ = lease.release().await;
            return Stored::Lost;
        }
        store_fenced(store, key, value, ttl, lease).await
    };
    match RunToEnd::new(storing).await {
        Stored::Kept => true,
        Stored::Refused(error) => {
            contention.not_kept(error.kind());
            true
        }
        Stored::Lost => {
            contention.not_kept(ErrorKind::Held);
            false
        }
    }
}

/// What became of a computed value.
enum Stored {
    Kept,
    /// The store did not take it, or did not say that it did.
    Refused(Error),
    /// The lease was not held to the end: something newer may be there.
    Lost,
}

/// Stores the value, and takes it back where the lease was not held to the end.
///
/// `invalidate` and `refresh` delete the lock before they touch the value. So either the release
/// below finds the lock gone, or the value was stored before their write.
///
/// The value is at hand: that it could not be kept is no reason to fail anybody, or to keep them
/// waiting. What is left to do after a failure is done in the background, and where the store cannot
/// be reached, the value lives as long as its TTL.
async fn store_fenced<S: KvStore + Clone>(
    store: S,
    key: Bytes,
    value: Bytes,
    ttl: Option<Duration>,
    lease: Lease,
) -> Stored {
    if lease.is_lost() {
        return Stored::Lost;
    }
    if let Err(error) = store.set(&key, &value, ttl).await {
        let untouched = !error.may_have_applied();
        lease.release_detached(move |freed| async move {
            if !untouched && !matches!(freed, Ok(true)) {
                let _ = store.compare_and_delete(&key, &value).await;
            }
        });
        return Stored::Refused(error);
    }
    match lease.release().await {
        Ok(true) => Stored::Kept,
        Ok(false) => {
            let _ = store.compare_and_delete(&key, &value).await;
            Stored::Lost
        }
        // Whether it was held to the end, nobody knows. Taken back later, the value would go away
        // under whoever has read it meanwhile.
        Err(error) => {
            let _ = store.compare_and_delete(&key, &value).await;
            Stored::Refused(error)
        }
    }
}
