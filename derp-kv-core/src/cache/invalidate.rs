use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;

use crate::coordinate::keys::{check_cache_key, lock_key};
use crate::error::{Error, Result};
use crate::observe::call::call;
use crate::observe::call_outcome::CallOutcome;
use crate::operation::Operation;
use crate::singleflight::flights::Purpose;
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;
use crate::store::kv_store::KvStore;
#[cfg(feature = "mutants")]
use crate::store::mutant;
use crate::store::ttl::Ttl;

/// Removes a cached value, and tells whether there was one, so that no computation that began
/// before can bring an older value back. A cool-down after a failed computation ends, too.
///
/// A plain [`delete`](KvStore::delete) does not stop a computation under way, whose older value
/// then comes back. Where the new value is at hand, [`refresh`] stores it in the same step.
///
/// Laws: `helpers::invalidate_wins`, `cache::invalidate_wins_over_a_refresh`.
///
/// # Errors
///
/// Those of the store; the value may then be gone or not, and
/// [`may_have_applied`](Error::may_have_applied) says whether anything was changed. Try again.
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a reserved key.
///
/// # Cancel safety
///
/// A dropped call may have removed the value or not. Call it again.
///
/// # Examples
///
/// ```
/// use derp_kv_core::{KvStore, KvStoreExt};
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// kv.set(b"product:42", b"old", None).await?;
/// // After the database was changed:
/// assert!(kv.invalidate("product:42").await?);
/// # Ok(()) }
/// ```
pub async fn invalidate<S, K>(store: &S, key: K) -> Result<bool>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]>,
{
    let work = pin!(invalidated(store, key.as_ref()));
    call(store.observer(), Operation::Invalidate, work, |_| CallOutcome::Done).await
}

/// [`invalidate`], of which nobody hears.
pub(crate) async fn invalidated<S>(store: &S, key: &[u8]) -> Result<bool>
where
    S: KvStore + ?Sized,
{
    let named = |error: Error| error.with_operation(Operation::Invalidate);
    check_cache_key(key).map_err(named)?;
    outdate(store, key, None);
    // The lock first: a holder that stores afterwards finds it gone, and takes its value back.
    #[cfg(feature = "mutants")]
    if mutant::is(store, Mutant::LeavesCoolDowns)
        && let Some(lock) = store.get(&lock_key(key)).await?
        && crate::coordinate::cooldown::is_one(&lock)
    {
        return store.delete(key).await;
    }
    let lock = store.delete(&lock_key(key)).await;
    let value = store.delete(key).await;
    outdate(store, key, None);
    let applied = [&lock, &value].into_iter().any(|deleted| match deleted {
        Ok(deleted) => *deleted,
        Err(error) => error.may_have_applied(),
    });
    lock.and(value).map_err(|error| named(error).with_may_have_applied(applied))
}

/// Replaces a cached value, so that no computation that began before can bring an older one back.
///
/// It is the write-through of the cache: after a change of the data, the new value is stored and
/// given to all who wait for it in this process. A plain [`set`](KvStore::set) does not stop a
/// computation under way, whose older value would then replace the newer one.
///
/// `ttl` is how long the key stays. Where its callers name a stale time, that is TTL and stale time
/// together, as [`GuardedGet::stored_for`](crate::GuardedGet::stored_for) says;
/// [`Cache::put`](crate::Cache::put) does it by itself.
///
/// # What is guaranteed, and what not
///
/// * What was computed before is not kept after. A computation of this process that is under way
///   stores nothing. One of another process, or one whose value is on its way to the store already,
///   finds its lease gone and takes its value back, which may take the new value with it: then the
///   next caller computes anew.
/// * The value replaces whatever is there, in two commands.
///
/// Laws: `helpers::refresh_wins`.
///
/// # Errors
///
/// Those of the store; the new value may then be stored or not, and
/// [`may_have_applied`](Error::may_have_applied) says whether anything was changed. Try again.
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a reserved key and a TTL out of range.
///
/// # Cancel safety
///
/// A dropped call may have stored the value or not. Call it again.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::{KvStore, KvStoreExt};
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// // After the database was changed:
/// kv.refresh("product:42", b"new", Some(Duration::from_secs(300))).await?;
/// assert_eq!(kv.get(b"product:42").await?.as_deref(), Some(&b"new"[..]));
/// # Ok(()) }
/// ```
pub async fn refresh<S, K>(store: &S, key: K, value: &[u8], ttl: Option<Duration>) -> Result<()>
where
    S: KvStore + ?Sized,
    K: AsRef<[u8]>,
{
    let work = pin!(refreshed(store, key.as_ref(), value, ttl));
    call(store.observer(), Operation::Refresh, work, |()| CallOutcome::Done).await
}

/// [`refresh`], of which nobody hears.
pub(crate) async fn refreshed<S>(
    store: &S,
    key: &[u8],
    value: &[u8],
    ttl: Option<Duration>,
) -> Result<()>
where
    S: KvStore + ?Sized,
{
    let named = |error: Error| error.with_operation(Operation::Refresh);
    check_cache_key(key).and_then(|()| Ttl::optional(ttl).map(drop)).map_err(named)?;
    outdate(store, key, Some(value));
    let unlocked = store.delete(&lock_key(key)).await;
    let stored = match &unlocked {
        Ok(_) => store.set(key, value, ttl).await,
        // Without it an older value could come back over the new one.
        Err(_) => Ok(()),
    };
    outdate(store, key, Some(value));
    let applied = unlocked.as_ref().map_or_else(Error::may_have_applied, |deleted| *deleted)
        || stored.as_ref().is_err_and(Error::may_have_applied);
    unlocked.and(stored).map_err(|error| named(error).with_may_have_applied(applied))
}

/// Who asks from now on shares no computation that began before, and those under way in this
/// process store nothing.
///
/// It is called before the store is changed, so that nothing more is stored, and after it, so that
/// nobody shares what was read from the store just before.
fn outdate<S: KvStore + ?Sized>(store: &S, key: &[u8], newer: Option<&[u8]>) {
    let Some(flights) = store.flights() else { return };
    for purpose in [Purpose::Cached, Purpose::Refreshed] {
        #[cfg(feature = "mutants")]
        if matches!(purpose, Purpose::Refreshed) && flights.is(Mutant::OutdatesNoRefresh) {
            continue;
        }
        let Some(flight) = flights.detach(purpose, key) else { continue };
        flight.outdate();
        if let Some(value) = newer {
            flight.land(Bytes::copy_from_slice(value), None);
        }
    }
}
