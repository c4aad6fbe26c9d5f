use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::coordinate::cooldown;
use crate::coordinate::renewal::{self, Hold, now_on};
use crate::coordinate::run_to_end::run_detached;
use crate::coordinate::token::token;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;
use crate::store::kv_store::KvStore;

/// An exclusive hold on a key, for as long as it is renewed.
///
/// [`KvStoreExt::try_lock`](crate::KvStoreExt::try_lock) and
/// [`lock`](crate::KvStoreExt::lock) make one. It is the record `{key}:lock` with a random token
/// of 128 bits as its value, written by `set_nx`. While the lease is held, a background task
/// renews it every third of its TTL by `compare_and_set`. It is freed by `compare_and_delete`, so
/// that nobody ever frees another's lock.
///
/// # What is guaranteed, and what not
///
/// A holder that crashes frees the key after one TTL. A dropped lease is freed at once, whichever
/// thread drops it: it keeps the runtime on which it was taken.
///
/// The holder takes the lease for lost no later than the store does: the TTL is counted from
/// before the request that took or renewed it was sent, and where its answer was slow, the lease
/// is renewed before the holder gets it. But a holder that is stopped, or cut off from the store,
/// for longer than **two thirds of the TTL, less a round trip**, may lose it: the last renewal may
/// be a third old when it happens. It goes on when it wakes, before it can look. Where that matters,
/// pass [`token`](Self::token) along to the resource and let it compare, or select on
/// [`lost`](Self::lost). A server that forgets acknowledged writes in a failover can also grant a
/// lease twice.
///
/// # Work that blocks its thread
///
/// The renewal runs on the store's own runtime where it has one
/// ([`KvStore::runtime`](crate::KvStore::runtime)): work may then block its thread as long as it
/// likes. `MemoryStore` has none, and the renewal is a task of the runtime on which the lease was
/// taken. There, work that blocks its thread for longer than two thirds of the TTL can lose it: a
/// worker of tokio keeps the timers that it registered. Block elsewhere:
///
/// ```
/// # use std::time::Duration;
/// use derp_kv_core::KvStoreExt;
/// # fn compress() {}
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let lease = kv.try_lock("archive", Duration::from_secs(1)).await?.expect("nobody has it");
/// tokio::task::spawn_blocking(compress).await?; // or `tokio::task::block_in_place(compress)`
/// assert!(lease.release().await?);
/// # Ok(()) }
/// ```
///
/// A lease measures its time on the clock of the runtime that renews it, which a paused test
/// moves. A store with a clock of its own, such as a `ManualClock`, ends the lock by that clock and
/// the holder does not notice before its next renewal.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// use derp_kv_core::KvStoreExt;
/// # async fn rebuild_index() {}
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let Some(lease) = kv.try_lock("index", Duration::from_secs(10)).await? else {
///     return Ok(()); // somebody else does it
/// };
/// tokio::select! {
///     () = rebuild_index() => {}
///     () = lease.lost() => eprintln!("stopped: the lease is no longer ours"),
/// }
/// let was_ours_to_the_end = lease.release().await?;
/// # assert!(was_ours_to_the_end);
/// # Ok(()) }
/// ```
pub struct Lease {
    hold: Arc<Hold>,
    renewal: Option<AbortHandle>,
    /// Whether the record may still be in the store.
    held: bool,
}

/// For how long a lease is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long the lock outlives a holder that crashed.
    pub(crate) ttl: Duration,
    /// For how long it is renewed, unless [`renew_for`](Lease::renew_for) says longer; none where there
    /// is no end.
    pub(crate) renewed_for: Option<Duration>,
}

impl Terms {
    /// A lease that is renewed until it is freed.
    pub(crate) fn unlimited(ttl: Duration) -> Self {
        Self { ttl, renewed_for: None }
    }
}

/// What came of trying for a lock.
pub(crate) enum Acquired {
    Lease(Lease),
    /// Somebody else has it.
    Held,
    /// The answer came so late that the lock had run out before it could be renewed.
    Late,
}

impl Lease {
    /// Takes the lock `key` unless somebody holds it. `tag` is kept behind the token.
    pub(crate) async fn acquire<S: KvStore + Clone>(
        store: &S,
        key: Bytes,
        tag: Option<&str>,
        Terms { ttl, renewed_for }: Terms,
    ) -> Result<Acquired> {
        let runtime = runtime_of(store)?;
        let token = token()?;
        let mut sent = now_on(&runtime);
        let hold = Hold::new(Arc::new(store.clone()), key, token, tag, ttl, runtime, sent);
        if let Some(renewed_for) = renewed_for {
            hold.renew_for(renewed_for);
        }
        // From here on the record may exist: a drop at any await point takes it back.
        let mut lease = Self { hold: Arc::new(hold), renewal: None, held: true };
        if !lease.take().await? {
            lease.held = false;
            return Ok(Acquired::Held);
        }
        if lease.hold.now() - sent > ttl / 3 {
            // The first renewal is due already, or too late: the store may have taken the request
            // long after it left, or long ago.
            sent = lease.hold.now();
            let renewed = lease.hold.renew(sent).await;
            if !renewed.map_err(|error| error.with_may_have_applied(true))? {
                lease.held = false;
                return Ok(Acquired::Late);
            }
            if lease.is_lost() {
                return Ok(Acquired::Late);
            }
        }
        // Kept before anything is awaited: dropped here, the lease ends its renewal.
        lease.renewal = Some(renewal::start(&lease.hold, sent));
        renewal::stand_back(&lease.hold).await;
        Ok(Acquired::Lease(lease))
    }

    async fn take(&mut self) -> Result<bool> {
        let Hold { store, key, value, ttl, .. } = &*self.hold;
        let error = match store.set_nx(key, value, Some(*ttl)).await {
            Ok(taken) => return Ok(taken),
            Err(error) if !error.may_have_applied() => {
                self.held = false;
                return Err(error);
            }
            Err(error) => error,
        };
        // Nobody else writes this token, so reading it back tells whether the write was applied.
        match store.get(key).await {
            Ok(Some(found)) => Ok(found == value),
            Ok(None) | Err(_) => Err(error),
        }
    }

    /// The random token, different for every lease that was ever taken.
    #[must_use]
    pub fn token(&self) -> &str {
        self.hold.token()
    }

    /// The record that it holds, for one who watches it without owning it.
    pub(crate) fn hold(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }

    /// Whether it is renewed where a lease that this caller takes would be. Another caller's runtime
    /// may have stopped.
    pub(crate) fn is_renewed_for<S: KvStore>(&self, store: &S) -> bool {
        runtime_of(store).is_ok_and(|runtime| runtime.id() == self.hold.runtime.id())
    }

    /// Frees the lock without anybody waiting for it, and then runs `and_then` with what came of it.
    pub(crate) fn release_detached<F>(
        self,
        and_then: impl FnOnce(Result<bool>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = self.hold.runtime.clone();
        run_detached(&runtime, async move { and_then(self.release().await).await });
    }

    /// Lets it be renewed for so long from now on, and no longer: who holds it may be on a runtime that
    /// nobody drives any more, while the store's own goes on renewing.
    pub(crate) fn renew_for(&self, how_long: Duration) {
        self.hold.renew_for(how_long);
    }

    /// The tag that was given when the lock was taken.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.hold.tag()
    }

    /// The key of the lock's own record, which ends in `:lock`.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.hold.key
    }

    /// Whether the lease is lost: taken over, deleted, or not renewed in time.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.hold.is_lost()
    }

    /// Waits until the lease is lost, for ever while it is renewed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing.
    pub async fn lost(&self) {
        self.hold.lost().await;
    }

    /// Frees the key and tells whether the lease was its holder's to the end.
    ///
    /// # Errors
    ///
    /// Those of the store. The lease is then freed in the background where the store can be
    /// reached, and expires where not.
    ///
    /// # Cancel safety
    ///
    /// A dropped release goes on in the background.
    pub async fn release(mut self) -> Result<bool> {
        // Not what the clock says: where the runtime was blocked, nobody has been told yet.
        let was_held = self.stop_renewal();
        let freed = self.hold.free().await;
        let freed = freed.map_err(|error| error.with_operation(Operation::Release))?;
        self.held = false;
        if !freed && was_held {
            self.hold.tell_of_loss();
        }
        Ok(freed)
    }

    /// Turns the lock into a [cool-down](super::cooldown) of `backoff`, and tells whether it was its
    /// holder's to the end. Where the store fails, the lock is freed in the background.
    pub(crate) async fn cool_down(mut self, backoff: Duration) -> Result<bool> {
        self.stop_renewal();
        let Hold { store, key, value, .. } = &*self.hold;
        let cooling = cooldown::record(value);
        let turned = store.compare_and_set(key, value, &cooling, Some(backoff)).await?;
        self.held = false;
        Ok(turned)
    }

    /// Leaves the record to its expiry.
    pub(crate) fn abandon(mut self) {
        self.held = false;
    }

    /// Whoever watches the lease hears at once that it has ended.
    /// Returns whether the lease had not been lost, as far as its renewal knew.
    fn stop_renewal(&mut self) -> bool {
        let Some(renewal) = self.renewal.take() else { return false };
        // A renewal that runs now and finds the record gone must not take it for lost.
        let was_held = self.hold.give_up();
        renewal.abort();
        was_held
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop_renewal();
        if self.held {
            let hold = self.hold.clone();
            let runtime = self.hold.runtime.clone();
            // A failure leaves the record to its expiry.
            run_detached(&runtime, async move { hold.free().await });
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("key", &String::from_utf8_lossy(&self.hold.key))
            .field("lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// Refuses what waits or measures time on a thread that has no runtime to do it with.
pub(crate) fn check_runtime() -> Result<()> {
    Handle::try_current().map(drop).map_err(|error| {
        let message =
            "a helper that waits needs a tokio runtime with timers: this thread is in none";
        Error::new(ErrorKind::Unsupported, message).with_source(error)
    })
}

/// Where leases on `store` are renewed.
fn runtime_of<S: KvStore>(store: &S) -> Result<Handle> {
    store.runtime().or_else(|| Handle::try_current().ok()).ok_or_else(|| {
        let message = "a lease needs a tokio runtime with timers: this thread is in none";
        Error::new(ErrorKind::Unsupported, message)
    })
}
