use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::coordinate::claim::too_slow;
use crate::coordinate::keys::{RETRY_DELAY, check_duration, check_key, lock_key};
use crate::coordinate::lease::{Acquired, Lease, Terms, check_runtime};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::call::call;
use crate::observe::call_outcome::CallOutcome;
use crate::observe::span::waits;
use crate::operation::Operation;
use crate::store::kv_store::KvStore;

/// Options of [`lock`](crate::KvStoreExt::lock).
///
/// | option | default | meaning |
/// |---|---|---|
/// | [`new(ttl)`](Self::new), [`ttl`](Self::ttl) | must be given | how long the lock outlives a holder that crashed |
/// | [`at_most`](Self::at_most) | the TTL | how long to wait for the lock at most |
/// | [`retry_delay`](Self::retry_delay) | 50 ms | how long a waiting caller sleeps at most before it looks again |
///
/// The user guide explains them on its page about locks (`docs/guide/src/locks.md` in the repository).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::Lock;
///
/// let options = Lock::new(Duration::from_secs(10)).at_most(Duration::from_secs(1));
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Lock {
    ttl: Duration,
    at_most: Duration,
    retry_delay: Duration,
}

impl Lock {
    /// A lock that outlives a holder that crashed by `ttl`.
    pub const fn new(ttl: Duration) -> Self {
        Self { ttl, at_most: ttl, retry_delay: RETRY_DELAY }
    }

    /// How long the lock outlives a holder that crashed.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long to wait for the lock at most. By default the TTL, after which the lock of a holder
    /// that crashed is free.
    pub const fn at_most(mut self, at_most: Duration) -> Self {
        self.at_most = at_most;
        self
    }

    /// How long a waiting caller sleeps at most before it looks again. By default 50 ms.
    pub const fn retry_delay(mut self, retry_delay: Duration) -> Self {
        self.retry_delay = retry_delay;
        self
    }
}

/// Takes the lease of `key` unless somebody holds it; see [`Lease`].
///
/// Laws: `helpers::leases_exclude`, `helpers::leases_are_renewed`,
/// `helpers::leases_outlive_blocked_work`, `helpers::leases_are_freed_by_their_owner`,
/// `faults::leases_stay_exclusive`.
///
/// # Errors
///
/// Those of the store. Where the answer was lost, the token is read back; where it came late, the
/// lease is renewed first. An error with [`may_have_applied`](Error::may_have_applied) means that
/// this did not tell either, and the lease, if it was taken, is freed in the background or expires.
/// [`Timeout`](ErrorKind::Timeout) where the store answers later than `ttl`,
/// [`InvalidArgument`](ErrorKind::InvalidArgument) for a reserved key and a TTL out of range,
/// [`Unsupported`](ErrorKind::Unsupported) outside of a tokio runtime.
///
/// # Cancel safety
///
/// A lease that a dropped call took is freed in the background.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use derp_kv_core::KvStoreExt;
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let lease = kv.try_lock("job", Duration::from_secs(5)).await?.expect("nobody has it");
/// assert!(kv.try_lock("job", Duration::from_secs(5)).await?.is_none());
/// lease.release().await?;
/// # Ok(()) }
/// ```
pub async fn try_lock<S, K>(store: &S, key: K, ttl: Duration) -> Result<Option<Lease>>
where
    S: KvStore + Clone,
    K: AsRef<[u8]>,
{
    let named = |error: Error| error.with_operation(Operation::TryLock);
    let key = key.as_ref();
    let work = pin!(async {
        check_key(key).map_err(named)?;
        let ttl = check_duration("ttl", ttl).map_err(named)?;
        let terms = Terms::unlimited(ttl);
        match Lease::acquire(store, lock_key(key), None, terms).await.map_err(named)? {
            Acquired::Lease(lease) => Ok(Some(lease)),
            Acquired::Held => Ok(None),
            Acquired::Late => Err(named(too_slow().with_may_have_applied(true))),
        }
    });
    let outcome = |lease: &Option<Lease>| match lease {
        Some(_) => CallOutcome::Acquired,
        None => CallOutcome::Held,
    };
    call(store.observer(), Operation::TryLock, work, outcome).await
}

/// Takes the lease of `key`, and waits for it no longer than [`at_most`](Lock::at_most).
///
/// Waiters are not served in order. Do not call [`guarded_get`](crate::KvStoreExt::guarded_get) for
/// the same key while you hold it: both use one record.
///
/// # Errors
///
/// As [`try_lock`], and [`Held`](ErrorKind::Held) where somebody else has the lock to the end.
/// [`retry_after`](Error::retry_after) is then when the lock is free unless its holder renews it.
///
/// # Cancel safety
///
/// As [`try_lock`].
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use derp_kv_core::{ErrorKind, KvStoreExt, Lock};
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let options = Lock::new(Duration::from_secs(5)).at_most(Duration::from_millis(10));
/// let lease = kv.lock("job", &options).await?;
/// let error = kv.lock("job", &options).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Held);
/// assert!(error.retry_after() <= Some(Duration::from_secs(5)));
/// # drop(lease);
/// # Ok(()) }
/// ```
pub async fn lock<S, K>(store: &S, key: K, options: &Lock) -> Result<Lease>
where
    S: KvStore + Clone,
    K: AsRef<[u8]>,
{
    let work = pin!(wait_for_lock(store, key.as_ref(), options));
    call(store.observer(), Operation::Lock, work, |_| CallOutcome::Acquired).await
}

async fn wait_for_lock<S>(store: &S, key: &[u8], options: &Lock) -> Result<Lease>
where
    S: KvStore + Clone,
{
    let named = |error: Error| error.with_operation(Operation::Lock);
    check_key(key).map_err(named)?;
    let ttl = check_duration("ttl", options.ttl).map_err(named)?;
    let retry_delay = check_duration("retry_delay", options.retry_delay).map_err(named)?;
    check_runtime().map_err(named)?;
    let record = lock_key(key);
    let began = Instant::now();
    loop {
        let terms = Terms::unlimited(ttl);
        let late = match Lease::acquire(store, record.clone(), None, terms).await.map_err(named)? {
            Acquired::Lease(lease) => return Ok(lease),
            Acquired::Held => false,
            Acquired::Late => true,
        };
        let left = options.at_most.saturating_sub(began.elapsed());
        if late {
            if left.is_zero() {
                return Err(named(too_slow().with_may_have_applied(true)));
            }
            continue;
        }
        let Some((holder, expiry)) = store.get_with_ttl(&record).await.map_err(named)? else {
            // It was freed since.
            if left.is_zero() {
                return Err(named(held(Some(Duration::ZERO))));
            }
            continue;
        };
        if left.is_zero() {
            return Err(named(held(expiry.remaining())));
        }
        waits();
        store.wait_for_change(&record, Some(&holder), left.min(retry_delay)).await;
    }
}

/// By `retry_after` the lock is free, unless its holder lives and keeps it. One that never expires says
/// nothing of when it is.
fn held(retry_after: Option<Duration>) -> Error {
    let error = Error::new(ErrorKind::Held, "somebody else holds the lock");
    match retry_after {
        Some(retry_after) => error.with_retry_after(retry_after),
        None => error,
    }
}
