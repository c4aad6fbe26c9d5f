use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use crate::coordinate::claim::{Claim, claim};
use crate::coordinate::keys::{LOCK_TTL, RETRY_DELAY, check_duration, check_key, lock_key};
use crate::coordinate::lease::Lease;
use crate::coordinate::run_to_end::Finish;
use crate::error::{Error, Result};
use crate::singleflight::flights::{Lead, Purpose, Ticket, Turn};
use crate::store::kv_store::KvStore;
use crate::store::ttl::Ttl;

/// What [`guarded_get`] does where the store cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnStoreError {
    /// The caller gets the store's error.
    #[default]
    Fail,
    /// It counts as a miss: the value is computed, once at a time in this process, and not stored.
    Compute,
}

/// Options of [`guarded_get`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct GuardedGet {
    ttl: Option<Duration>,
    lock_ttl: Duration,
    retry_delay: Duration,
    on_store_error: OnStoreError,
}

impl GuardedGet {
    /// Keeps a computed value for `ttl`.
    pub fn ttl(ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            lock_ttl: LOCK_TTL,
            retry_delay: RETRY_DELAY,
            on_store_error: OnStoreError::default(),
        }
    }

    /// Keeps a computed value until it is deleted.
    pub fn forever() -> Self {
        Self { ttl: None, ..Self::ttl(Duration::ZERO) }
    }

    /// How long the lock outlives a holder that crashed, and how long a caller waits for one that
    /// is alive before it computes for itself. By default two seconds.
    pub fn lock_ttl(mut self, lock_ttl: Duration) -> Self {
        self.lock_ttl = lock_ttl;
        self
    }

    /// How long a waiting caller sleeps at most before it looks again. By default 50 ms.
    pub fn retry_delay(mut self, retry_delay: Duration) -> Self {
        self.retry_delay = retry_delay;
        self
    }

    /// What to do where the store cannot be read. By default the caller gets the error.
    pub fn on_store_error(mut self, on_store_error: OnStoreError) -> Self {
        self.on_store_error = on_store_error;
        self
    }
}

/// Reads `key`, or computes its value once for everybody and keeps it.
///
/// See [`KvStoreExt::guarded_get`](crate::KvStoreExt::guarded_get).
///
/// # Errors
///
/// As there.
pub async fn guarded_get<S, K, F, Fut, V, E>(
    store: &S,
    key: K,
    options: GuardedGet,
    compute: F,
) -> Result<Bytes, E>
where
    S: KvStore + Clone,
    K: AsRef<[u8]> + Send + Sync,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<V, E>> + Send,
    V: Into<Bytes> + Send,
    E: From<Error> + Send,
{
    let key = key.as_ref();
    let named = |error: Error| error.with_operation("guarded_get");
    check_key(key).map_err(named)?;
    Ttl::optional(options.ttl).map_err(named)?;
    check_duration("lock_ttl", options.lock_ttl).map_err(named)?;
    check_duration("retry_delay", options.retry_delay).map_err(named)?;
    Call { store, key, options }.run(compute).await
}

struct Call<'a, S> {
    store: &'a S,
    key: &'a [u8],
    options: GuardedGet,
}

impl<S: KvStore + Clone> Call<'_, S> {
    async fn run<F, Fut, V, E>(self, compute: F) -> Result<Bytes, E>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Bytes> + Send,
        E: From<Error> + Send,
    {
        let flights = self.store.flights();
        let mut ticket =
            flights.and_then(|flights| flights.join_existing(Purpose::Cached, self.key));
        let mut broken = false;
        loop {
            // Whoever finds no flight asks the store before opening one.
            let joined = match ticket.take() {
                Some(ticket) => ticket,
                None => {
                    if let Some(value) = self.read().await? {
                        return Ok(value);
                    }
                    flights.map_or_else(Ticket::alone, |flights| {
                        flights.join(Purpose::Cached, self.key)
                    })
                }
            };
            let turn = match tokio::time::timeout(self.options.lock_ttl, joined.turn()).await {
                Ok(turn) => Either::Left(turn),
                Err(_) => joined.turn_or_place().await,
            };
            match turn {
                Either::Left(Turn::Landed(value)) => return Ok(value),
                Either::Left(Turn::Lead(lead)) => {
                    return self.contend(&joined, Some(lead), None, compute).await;
                }
                Either::Right(place) => {
                    return self.contend(&joined, None, Some(place), compute).await;
                }
                // Once may be chance. One more flight each would send the callers to a store that
                // goes on failing again and again.
                Either::Left(Turn::Broken(error)) if broken && !self.computes_on_store_error() => {
                    return Err(error.with_operation("guarded_get").into());
                }
                Either::Left(Turn::Broken(_)) => broken = true,
            }
        }
    }

    /// Contends for the lock with the other processes: the leader of this one, or the one caller
    /// that has outwaited it.
    async fn contend<F, Fut, V, E>(
        &self,
        ticket: &Ticket<'_>,
        lead: Option<Lead<'_>>,
        mut place: Option<SemaphorePermit<'_>>,
        compute: F,
    ) -> Result<Bytes, E>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Bytes> + Send,
        E: From<Error> + Send,
    {
        let mut watch = None;
        loop {
            let step = match claim(self.store, self.key, None, self.options.lock_ttl).await {
                Ok(Claim::Locked(lease)) => return self.fill(ticket, lease, compute).await,
                Ok(Claim::Found(value)) => {
                    ticket.land(value.clone());
                    return Ok(value);
                }
                Ok(Claim::Held) => self.outwaited(ticket, &mut watch).await,
                Err(error) => Err(error),
            };
            match step {
                Ok(true) => {
                    place = place.or_else(|| ticket.try_place_beside());
                    if place.is_some() {
                        return self.compute_beside(ticket, compute).await;
                    }
                }
                Ok(false) => {}
                Err(_) if self.computes_on_store_error() => {
                    // Somebody may be computing beside the lead already.
                    let _place = match place {
                        None => ticket.place_beside().await,
                        held => held,
                    };
                    return match ticket.landed() {
                        Some(value) => Ok(value),
                        None => self.compute_beside(ticket, compute).await,
                    };
                }
                Err(error) => {
                    if let Some(lead) = lead {
                        lead.break_up(&error);
                    }
                    return Err(error.with_operation("guarded_get").into());
                }
            }
            if let Some(value) = ticket.landed() {
                return Ok(value);
            }
            self.store.wait_for_change(self.key, None, self.options.retry_delay).await;
            match self.read().await {
                Ok(Some(value)) => {
                    ticket.land(value.clone());
                    return Ok(value);
                }
                Ok(None) => {}
                Err(error) => {
                    if let Some(lead) = lead {
                        lead.break_up(&error);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Looks at the lock that somebody else holds, when it is first seen and once that holder has
    /// had it for `lock_ttl`: whether the holder is alive and has been waited for long enough.
    ///
    /// A holder that died leaves its lock for a while. Only a lock that was renewed since shows a
    /// holder that is alive; otherwise the lock expires, and one of those who contend for it
    /// succeeds.
    async fn outwaited(&self, ticket: &Ticket<'_>, watch: &mut Option<Watch>) -> Result<bool> {
        if watch.as_ref().is_some_and(|watch| Instant::now() < watch.look_at) {
            return Ok(false);
        }
        let Some((holder, expiry)) = self.store.get_with_ttl(&lock_key(self.key)).await? else {
            return Ok(false);
        };
        let now = Instant::now();
        let lock_ttl = self.options.lock_ttl;
        let expires_at = expiry.remaining().and_then(|left| now.checked_add(left));
        let watch = match watch {
            Some(watch) if watch.holder == holder => watch,
            watch => {
                let look_at = ticket.held_since(&holder) + lock_ttl;
                watch.insert(Watch { look_at, holder, expires_at })
            }
        };
        let alive = match (watch.expires_at, expires_at) {
            // A renewal moves it by a third of a TTL, the way of an answer by far less.
            (Some(first), Some(now)) => now.saturating_duration_since(first) > lock_ttl / 6,
            _ => true,
        };
        Ok(alive && now >= watch.look_at)
    }

    /// The holder of the lock computes and stores.
    async fn fill<F, Fut, V, E>(
        &self,
        ticket: &Ticket<'_>,
        lease: Lease,
        compute: F,
    ) -> Result<Bytes, E>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Bytes> + Send,
        E: From<Error> + Send,
    {
        ticket.held_since(lease.value());
        let value: Bytes = match compute().await {
            Ok(value) => value.into(),
            Err(error) => {
                // Where the release fails, it goes on in the background.
                let _ = lease.release().await;
                return Err(error);
            }
        };
        if self.keep(&value, lease).await {
            ticket.land(value.clone());
        }
        // Where the lease was lost, the value may be older than what is there by now: the caller
        // who computed it gets it, and the others look for themselves.
        Ok(value)
    }

    /// Stores the value and releases the lease: half of this must not stay undone when the caller
    /// goes away. Tells whether the lease was held to the end.
    async fn keep(&self, value: &Bytes, lease: Lease) -> bool {
        let store = self.store.clone();
        let (key, value) = (Bytes::copy_from_slice(self.key), value.clone());
        let ttl = self.options.ttl;
        Finish::new(async move { store_fenced(&store, &key, &value, ttl, lease).await }).await
    }

    /// Computes without the lock, and stores nothing: something newer may be there.
    async fn compute_beside<F, Fut, V, E>(
        &self,
        ticket: &Ticket<'_>,
        compute: F,
    ) -> Result<Bytes, E>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Bytes> + Send,
        E: From<Error> + Send,
    {
        let value: Bytes = compute().await?.into();
        ticket.land(value.clone());
        Ok(value)
    }

    fn computes_on_store_error(&self) -> bool {
        self.options.on_store_error == OnStoreError::Compute
    }

    async fn read(&self) -> Result<Option<Bytes>> {
        match self.store.get(self.key).await {
            Err(_) if self.computes_on_store_error() => Ok(None),
            result => result.map_err(|error| error.with_operation("guarded_get")),
        }
    }
}

/// What a waiting caller saw of the lock.
struct Watch {
    /// When to look again.
    look_at: Instant,
    holder: Bytes,
    /// When the lock was to expire as it was first seen; none: never.
    expires_at: Option<Instant>,
}

/// Stores the value, and takes it back where the lease was not held to the end. Tells whether it
/// was.
///
/// `invalidate` deletes the lease before the value. So either the release below finds the lease
/// gone, or the value was stored before its deletion.
async fn store_fenced<S: KvStore>(
    store: &S,
    key: &[u8],
    value: &[u8],
    ttl: Option<Duration>,
    lease: Lease,
) -> bool {
    if lease.is_lost() {
        return false;
    }
    // The value is at hand; that it could not be kept is no reason to fail the caller.
    let stored = store.set(key, value, ttl).await;
    let untouched = stored.is_err_and(|error| !error.may_have_applied());
    let held = matches!(lease.release().await, Ok(true));
    if !held && !untouched {
        // Where the store cannot be reached, the value lives as long as its TTL.
        let _ = store.compare_and_delete(key, value).await;
    }
    held
}
