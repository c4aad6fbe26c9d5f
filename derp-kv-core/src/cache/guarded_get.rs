use bytes::Bytes;

use crate::cache::duty::Computed;
use crate::cache::fill::Fill;
use crate::cache::freshness::{Age, Got, Source, StaleCause};
use crate::cache::lookup::{Asked, Lookup};
use crate::cache::options::GuardedGet;
use crate::cache::refresh::{Claimed, joined, serve};
use crate::cache::tell::{OPERATION, told};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::call::{Call, in_span};
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;
use crate::store::kv_store::KvStore;
#[cfg(feature = "mutants")]
use crate::store::mutant;

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
/// * A hit is one command, fresh or stale, an uncontended miss or refresh at most five. Callers in one
///   process share one flight (singleflight): one of them looks at the store for all, one computes.
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
///   computes; with [`backoff`](GuardedGet::backoff) it is left as a cool-down, `!token`, and until that
///   expires nobody in any process computes, and callers get `Failing` at once, with the time that is
///   left. "Not found" is better made a value: an absence that is cached is asked for once.
/// * With [`stale`](GuardedGet::stale) or [`early`](GuardedGet::early), one caller of all processes
///   refreshes a value that is there, under the same lock, and everybody else gets it as it is, at once.
///   Here the one who refreshes waits for its own computation; with [`Cache`](crate::Cache) nobody does.
///   Where the refresh fails, it gets the value that was there like everybody else; nothing is written to
///   the value then, so its end does not move. Nothing is ever served when it is older than TTL and stale
///   time together. Between two tries of one process to take the lock lies at least `retry_delay`.
/// * What is computed may say for how long it is kept, and whether at all: [`Fill`].
/// * Those who wait see a value that anybody stores within `retry_delay`.
/// * [`invalidate`](crate::KvStoreExt::invalidate) and [`refresh`](crate::KvStoreExt::refresh) win
///   over computations that began before, but for a round trip: a holder that finds its lease gone
///   takes its value back. A holder that dies in between, or cannot reach the store, leaves it to
///   its TTL. What was computed beside a holder is never stored, but a caller of its process that
///   waits for it may get it, also after an invalidation in another process. A plain
///   [`set`](KvStore::set) or [`delete`](KvStore::delete) does **not** stop a computation under way: its
///   older value is stored over the newer one, or comes back.
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
/// * [`Failing`](crate::ErrorKind::Failing) where the computation of another caller failed, and during a
///   cool-down; [`retry_after`](Error::retry_after) says when it is tried again, where that is known.
/// * [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a reserved key and an option out of
///   range or that does not go with another one, before anything is done. The error names it.
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
    V: Into<Fill>,
    E: From<Error>,
{
    let call = Call::new(store.observer(), OPERATION);
    let got = in_span!(call, found_or_computed(call, store, key.as_ref(), options, compute));
    got.map(|got| got.value)
}

/// [`guarded_get`], and what it knows of the value: whether it is stale, and where it comes from.
///
/// # Errors
///
/// As [`guarded_get`].
///
/// # Cancel safety
///
/// As [`guarded_get`].
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use derp_kv_core::{Freshness, GuardedGet, KvStoreExt, Source};
/// # #[tokio::main] async fn main() -> anyhow::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let options = GuardedGet::new(Duration::from_secs(300));
/// let compute = || async { anyhow::Ok("a page") };
/// let first = kv.guarded_get_detailed("page", &options, compute).await?;
/// assert_eq!((first.freshness, first.source), (Freshness::Fresh, Source::Computed));
/// let again = kv.guarded_get_detailed("page", &options, compute).await?;
/// assert_eq!(again.source, Source::Store);
/// # Ok(()) }
/// ```
pub async fn guarded_get_detailed<S, K, F, Fut, V, E>(
    store: &S,
    key: K,
    options: &GuardedGet,
    compute: F,
) -> Result<Got, E>
where
    S: KvStore + Clone,
    K: AsRef<[u8]>,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<V, E>>,
    V: Into<Fill>,
    E: From<Error>,
{
    let call = Call::new(store.observer(), OPERATION);
    in_span!(call, found_or_computed(call, store, key.as_ref(), options, compute))
}

async fn found_or_computed<S, F, Fut, V, E>(
    call: Call<'_>,
    store: &S,
    key: &[u8],
    options: &GuardedGet,
    compute: F,
) -> Result<Got, E>
where
    S: KvStore + Clone,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<V, E>>,
    V: Into<Fill>,
    E: From<Error>,
{
    if options.soft_timeout.is_some() {
        let message =
            "`soft_timeout` needs a computation that can go on without its caller: use `Cache`";
        let error = Error::new(ErrorKind::InvalidArgument, message);
        return Err(call.refused(error.with_operation(OPERATION)));
    }
    let lookup = match Lookup::new(store, key, options) {
        Ok(lookup) => lookup,
        Err(error) => return Err(call.refused(error)),
    };
    loop {
        let (entry, window) = match lookup.ask().await {
            Asked::Found(entry) => (entry, lookup.options.window(lookup.options.ttl)),
            Asked::Landed(entry) => {
                match joined(&entry, lookup.options.window(lookup.options.ttl)) {
                    Some(got) => return Ok(told(call, got)),
                    None => continue,
                }
            }
            Asked::Duty(duty) => {
                // Boxed, as all that a hit does without: its future stays small.
                return match Box::pin(duty.run(fill(compute))).await {
                    Ok(value) => Ok(told(call, Got::fresh(value, Source::Computed))),
                    Err(error) => Err(call.failed(error)),
                };
            }
            Asked::Refused(error) => return Err(call.refused(error)),
        };
        if window.age(entry.left()) == Age::Fresh {
            return Ok(told(call, Got::fresh(entry.value, Source::Store)));
        }
        let (entry, cause) = match lookup.board_refresh(window, &entry) {
            Err(cause) => (entry, cause),
            Ok(refresh) => match Box::pin(refresh.claim(&entry)).await {
                Claimed::Not(cause) => (entry, cause),
                Claimed::Already(newer) => (newer, StaleCause::Refreshing),
                Claimed::Duty { duty, seen } => {
                    return match Box::pin(duty.run(fill(compute))).await {
                        Ok(value) => Ok(told(call, Got::fresh(value, Source::Computed))),
                        #[cfg(feature = "mutants")]
                        Err(error) if mutant::is(store, Mutant::FailsWithTheRefresh) => Err(error),
                        #[cfg(feature = "mutants")]
                        Err(error) if mutant::is(store, Mutant::ServesPastTheWindow) => {
                            let seen = seen.map(|seen| Got::fresh(seen.value, Source::Store));
                            seen.ok_or(error)
                        }
                        Err(error) => {
                            match seen.and_then(|seen| serve(&seen, window, StaleCause::Failed)) {
                                Some(got) => Ok(told(call, got)),
                                None => Err(call.failed(error)),
                            }
                        }
                    };
                }
            },
        };
        if let Some(got) = serve(&entry, window, cause) {
            return Ok(told(call, got));
        }
        // It went away meanwhile.
    }
}

async fn fill<F, Fut, V, E>(compute: F) -> Result<Computed<Bytes>, E>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<V, E>>,
    V: Into<Fill>,
{
    let fill: Fill = compute().await?.into();
    Ok(Computed { value: fill.value.clone(), fill: Ok(fill) })
}
