use std::fmt;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::store::kv_store::KvStore;

/// An exclusive hold on a key, for as long as it is renewed.
///
/// [`KvStoreExt::try_lock`](crate::KvStoreExt::try_lock) and
/// [`lock`](crate::KvStoreExt::lock) make one. It is the record `{key}:lock` with a random token
/// of 128 bits as its value, written by `set_nx`. While the lease is held, a background task
/// renews it every third of its TTL by `compare_and_set`, also while the work blocks its thread,
/// as long as the runtime has another. It is freed by `compare_and_delete`, so that nobody ever
/// frees another's lock.
///
/// # What is guaranteed, and what not
///
/// A holder that crashes frees the key after one TTL. A dropped lease frees it in the background
/// at once; outside a tokio runtime it is not renewed, and expires.
///
/// The holder takes the lease for lost no later than the store does: the TTL is counted from
/// before the request that took or renewed it was sent, and where its answer was slow, the lease
/// is renewed before the holder gets it. But a holder whose process is stopped for longer than the
/// TTL goes on when it wakes, before it can look. Where that matters, pass [`token`](Self::token)
/// along to the resource and let it compare, or select on [`lost`](Self::lost). A server that
/// forgets acknowledged writes in a failover can also grant a lease twice.
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

struct Hold {
    store: Arc<dyn KvStore>,
    key: Bytes,
    value: Bytes,
    token_len: usize,
    ttl: Duration,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy)]
struct State {
    deadline: Instant,
    lost: bool,
}

impl Lease {
    /// Takes the lock `key` unless somebody holds it. `tag` is kept behind the token.
    pub(crate) async fn acquire<S: KvStore + Clone>(
        store: &S,
        key: Bytes,
        tag: Option<&str>,
        ttl: Duration,
    ) -> Result<Option<Self>> {
        let token = token()?;
        let mut sent = Instant::now();
        let value = match tag {
            Some(tag) => Bytes::from(format!("{token}:{tag}")),
            None => Bytes::from(token.clone()),
        };
        let hold = Hold {
            store: Arc::new(store.clone()),
            key,
            value,
            token_len: token.len(),
            ttl,
            state: watch::Sender::new(State { deadline: sent + ttl, lost: false }),
        };
        // From here on the record may exist: a drop at any await point takes it back.
        let mut lease = Self { hold: Arc::new(hold), renewal: None, held: true };
        let mut taken = lease.take().await?;
        if taken && sent.elapsed() > ttl / 3 {
            // The first renewal is due already, or too late: the store may have taken the request
            // long after it left, or long ago.
            sent = Instant::now();
            let renewed = lease.hold.renew(sent).await;
            taken = renewed.map_err(|error| error.with_may_have_applied(true))?;
        }
        if !taken {
            lease.held = false;
            return Ok(None);
        }
        lease.start_renewal(sent);
        stand_back().await;
        Ok(Some(lease))
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

    fn start_renewal(&mut self, taken: Instant) {
        if let Ok(runtime) = Handle::try_current() {
            let renewal = keep_renewing(self.hold.clone(), taken);
            self.renewal = Some(runtime.spawn(renewal).abort_handle());
        }
    }

    /// The random token, different for every lease that was ever taken.
    #[must_use]
    pub fn token(&self) -> &str {
        // The token was made of hexadecimal digits.
        std::str::from_utf8(&self.hold.value[..self.hold.token_len]).unwrap_or_default()
    }

    /// What the lock's record holds.
    pub(crate) fn value(&self) -> &Bytes {
        &self.hold.value
    }

    /// The key of the lock's own record, which ends in `:lock`.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.hold.key
    }

    /// Whether the lease is lost: taken over, deleted, or not renewed in time.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let state = *self.hold.state.borrow();
        state.lost || Instant::now() >= state.deadline
    }

    /// Waits until the lease is lost, for ever while it is renewed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing.
    pub async fn lost(&self) {
        let mut state = self.hold.state.subscribe();
        loop {
            let State { deadline, lost } = *state.borrow_and_update();
            if lost || Instant::now() >= deadline {
                return;
            }
            // Renewed, lost, or out of time: look again. The sender lives as long as `self`.
            let _ = tokio::time::timeout_at(deadline, state.changed()).await;
        }
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
        self.stop_renewal();
        let freed = self.hold.store.compare_and_delete(&self.hold.key, &self.hold.value).await?;
        self.held = false;
        Ok(freed)
    }

    /// Leaves the record to its expiry.
    pub(crate) fn abandon(mut self) {
        self.held = false;
    }

    fn stop_renewal(&mut self) {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop_renewal();
        if !self.held {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let hold = self.hold.clone();
            // A failure leaves the record to its expiry.
            runtime.spawn(async move {
                let _ = hold.store.compare_and_delete(&hold.key, &hold.value).await;
            });
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

impl Hold {
    /// Tells whether the record is still there. The deadline counts from before the request left,
    /// so the holder's clock never runs behind the store's.
    async fn renew(&self, sent: Instant) -> Result<bool> {
        let Self { store, key, value, ttl, state, .. } = self;
        let renewed = store.compare_and_set(key, value, value, Some(*ttl)).await?;
        if renewed {
            state.send_replace(State { deadline: sent + *ttl, lost: false });
        }
        Ok(renewed)
    }
}

/// Renews until the lease is lost. An unknown answer is asked for again.
async fn keep_renewing(hold: Arc<Hold>, taken: Instant) {
    let interval = hold.ttl / 3;
    let mut next = taken + interval;
    loop {
        tokio::time::sleep_until(next).await;
        let sent = Instant::now();
        let deadline = hold.state.borrow().deadline;
        let renewal = hold.renew(sent);
        next = match tokio::time::timeout_at(deadline.min(sent + interval), renewal).await {
            Ok(Ok(true)) => sent + interval,
            Ok(Ok(false)) => break,
            Ok(Err(_)) | Err(_) if Instant::now() >= deadline => break,
            Ok(Err(_)) => Instant::now() + interval / 4,
            Err(_) => Instant::now(),
        };
    }
    hold.state.send_modify(|state| state.lost = true);
}

/// Lets the renewal register its timer before the work may block this thread, and another thread of
/// the runtime wake to watch it. tokio's `yield_now` would look at the timers itself in between,
/// and the other thread, finding that done, might go to sleep without them.
async fn stand_back() {
    let mut stood_back = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut stood_back, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn token() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(ErrorKind::Backend, "the operating system gave no random bytes")
            .with_source(error)
    })?;
    Ok(hex(&bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
