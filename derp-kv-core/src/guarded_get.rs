use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::time::Instant;

use crate::flights::{Lead, Purpose, Ticket, Turn};
use crate::names::{LOCK_TTL, RETRY_DELAY, check_duration, check_key, lock_key};
use crate::{Error, KvStore, Lease, Result, Ttl};

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
            match tokio::time::timeout(self.options.lock_ttl, joined.turn()).await {
                Ok(Turn::Landed(value)) => return Ok(value),
                Ok(Turn::Lead(lead)) => return self.lead(lead, compute).await,
                Ok(Turn::Broken) => {}
                Err(_) => return self.outwait(&joined, compute).await,
            }
        }
    }

    /// The leader of this process contends for the lock with the others.
    async fn lead<F, Fut, V, E>(&self, lead: Lead<'_>, compute: F) -> Result<Bytes, E>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Bytes> + Send,
        E: From<Error> + Send,
    {
        let patience = Instant::now() + self.options.lock_ttl;
        loop {
            match self.try_lead().await {
                Ok(Step::Locked(lease)) => return self.fill(lead, lease, compute).await,
                Ok(Step::Found(value)) => {
                    lead.land(value.clone());
                    return Ok(value);
                }
                Ok(Step::Held) => {}
                Err(_) if self.options.on_store_error == OnStoreError::Compute => {
                    return self.compute_beside(lead, compute).await;
                }
                Err(error) => {
                    lead.break_up();
                    return Err(error.with_operation("guarded_get").into());
                }
            }
            if let Some(value) = lead.landed() {
                return Ok(value);
            }
            if Instant::now() >= patience
                && let Some(_place) = lead.try_place_beside()
            {
                return self.compute_beside(lead, compute).await;
            }
            self.store.wait_for_change(self.key, None, self.options.retry_delay).await;
            match self.read().await {
                Ok(Some(value)) => {
                    lead.land(value.clone());
                    return Ok(value);
                }
                Ok(None) => {}
                Err(error) => {
                    lead.break_up();
                    return Err(error.into());
                }
            }
        }
    }

    async fn try_lead(&self) -> Result<Step> {
        let lock = lock_key(self.key);
        let lease = Lease::acquire(self.store, lock, None, self.options.lock_ttl).await?;
        let Some(lease) = lease else { return Ok(Step::Held) };
        // The holder before may have filled it between our look and our lock.
        match self.store.get(self.key).await? {
            Some(value) => {
                // Whether it could be released matters to nobody: the value is there.
                let _ = lease.release().await;
                Ok(Step::Found(value))
            }
            None => Ok(Step::Locked(lease)),
        }
    }

    /// The holder of the lock computes and stores.
    async fn fill<F, Fut, V, E>(&self, lead: Lead<'_>, lease: Lease, compute: F) -> Result<Bytes, E>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Bytes> + Send,
        E: From<Error> + Send,
    {
        let value: Bytes = match compute().await {
            Ok(value) => value.into(),
            Err(error) => {
                // Where the release fails, it goes on in the background.
                let _ = lease.release().await;
                return Err(error);
            }
        };
        if self.keep(&value, lease).await {
            lead.land(value.clone());
        }
        // Where the lease was lost, the value may be older than what is there by now: the caller
        // who computed it gets it, and the others look for themselves.
        Ok(value)
    }

    /// Stores the value and releases the lease, on a task of its own: half of this must not stay
    /// undone when the caller goes away. Tells whether the lease was held to the end.
    async fn keep(&self, value: &Bytes, lease: Lease) -> bool {
        let store = self.store.clone();
        let (key, value) = (Bytes::copy_from_slice(self.key), value.clone());
        let ttl = self.options.ttl;
        let keep = async move { store_fenced(&store, &key, &value, ttl, lease).await };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.spawn(keep).await.unwrap_or(false),
            Err(_) => keep.await,
        }
    }

    /// Waits on beside a leader that takes longer than the lock's TTL: for its value, for the
    /// lead, or for this process's one place to compute beside it.
    async fn outwait<F, Fut, V, E>(&self, ticket: &Ticket<'_>, compute: F) -> Result<Bytes, E>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Bytes> + Send,
        E: From<Error> + Send,
    {
        let came = {
            let (turn, place) = (pin!(ticket.turn()), pin!(ticket.place_beside()));
            // Whichever is not taken leaves its queue here, before the computation.
            match select(turn, place).await {
                Either::Left((turn, _)) => Either::Left(turn),
                Either::Right((place, _)) => Either::Right(place),
            }
        };
        let turn = match came {
            Either::Left(turn) => turn,
            Either::Right(Some(_place)) => {
                let value: Bytes = compute().await?.into();
                ticket.land(value.clone());
                return Ok(value);
            }
            // The flight has ended, so nobody leads it.
            Either::Right(None) => ticket.turn().await,
        };
        match turn {
            Turn::Landed(value) => Ok(value),
            Turn::Lead(lead) => self.lead(lead, compute).await,
            Turn::Broken => match self.read().await? {
                Some(value) => Ok(value),
                None => Ok(compute().await?.into()),
            },
        }
    }

    /// Computes without the lock, and stores nothing: something newer may be there.
    async fn compute_beside<F, Fut, V, E>(&self, lead: Lead<'_>, compute: F) -> Result<Bytes, E>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Bytes> + Send,
        E: From<Error> + Send,
    {
        let value: Bytes = compute().await?.into();
        lead.land(value.clone());
        Ok(value)
    }

    async fn read(&self) -> Result<Option<Bytes>> {
        match self.store.get(self.key).await {
            Err(_) if self.options.on_store_error == OnStoreError::Compute => Ok(None),
            result => result.map_err(|error| error.with_operation("guarded_get")),
        }
    }
}

enum Step {
    /// The lock is the caller's, and there is no value.
    Locked(Lease),
    Found(Bytes),
    /// Somebody else has the lock.
    Held,
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
