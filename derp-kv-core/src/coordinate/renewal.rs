use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::Result;
use crate::observe::event::Event;
use crate::store::kv_store::KvStore;

/// The record of a lock in the store, as its holder keeps it alive.
pub(crate) struct Hold {
    pub(crate) store: Arc<dyn KvStore>,
    pub(crate) key: Bytes,
    /// The token and, behind `:`, a tag where there is one.
    pub(crate) value: Bytes,
    token_len: usize,
    pub(crate) ttl: Duration,
    /// Where the record is renewed, and by whose clock its time is measured.
    pub(crate) runtime: Handle,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy)]
struct State {
    deadline: Instant,
    lost: bool,
    /// After which it is not renewed any more.
    renewed_until: Option<Instant>,
}

/// The time on the clock of `runtime`, which may be another than that of the calling thread: in a
/// test, one of them may be paused.
pub(crate) fn now_on(runtime: &Handle) -> Instant {
    let _context = runtime.enter();
    Instant::now()
}

impl Hold {
    /// A record that is about to be written, by a request sent at `sent`.
    pub(crate) fn new(
        store: Arc<dyn KvStore>,
        key: Bytes,
        token: String,
        tag: Option<&str>,
        ttl: Duration,
        runtime: Handle,
        sent: Instant,
    ) -> Self {
        let token_len = token.len();
        let value = match tag {
            Some(tag) => Bytes::from(format!("{token}:{tag}")),
            None => Bytes::from(token),
        };
        let state =
            watch::Sender::new(State { deadline: sent + ttl, lost: false, renewed_until: None });
        Self { store, key, value, token_len, ttl, runtime, state }
    }

    /// The random token, different for every lease that was ever taken.
    pub(crate) fn token(&self) -> &str {
        // The token was made of hexadecimal digits.
        std::str::from_utf8(&self.value[..self.token_len]).unwrap_or_default()
    }

    pub(crate) fn tag(&self) -> Option<&str> {
        let tag = self.value.get(self.token_len + 1..)?;
        std::str::from_utf8(tag).ok()
    }

    pub(crate) fn now(&self) -> Instant {
        now_on(&self.runtime)
    }

    pub(crate) fn is_lost(&self) -> bool {
        let State { deadline, lost, .. } = *self.state.borrow();
        lost || self.now() >= deadline
    }

    /// Waits until the renewal tells that the lock is lost.
    pub(crate) async fn lost(&self) {
        // The sender lives as long as `self`.
        let _ = self.state.subscribe().wait_for(|state| state.lost).await;
    }

    /// Tells whether the record is still there. The deadline counts from before the request left,
    /// so the holder's clock never runs behind the store's.
    pub(crate) async fn renew(&self, sent: Instant) -> Result<bool> {
        let Self { store, key, value, ttl, state, .. } = self;
        let renewed = store.compare_and_set(key, value, value, Some(*ttl)).await?;
        if renewed {
            state.send_modify(|state| {
                (state.deadline, state.lost) = (sent + *ttl, false);
            });
        }
        Ok(renewed)
    }

    /// Lets it be renewed for so long from now on, and no longer.
    pub(crate) fn renew_for(&self, how_long: Duration) {
        let until = self.now().checked_add(how_long);
        self.state.send_modify(|state| state.renewed_until = until);
    }

    /// The record is its holder's no more.
    /// Returns whether it was until now: of several who find that out, one is told so.
    pub(crate) fn give_up(&self) -> bool {
        self.state.send_if_modified(|state| !std::mem::replace(&mut state.lost, true))
    }

    /// Tells who watches the store that the record was lost. A computation of a cache tells in its own words
    /// what that comes to: its value is not kept.
    pub(crate) fn tell_of_loss(&self) {
        let is_of_cache = self.state.borrow().renewed_until.is_some();
        if !is_of_cache {
            Event::LeaseLost { ttl: self.ttl }.tell(self.store.observer());
        }
    }

    pub(crate) async fn free(&self) -> Result<bool> {
        self.store.compare_and_delete(&self.key, &self.value).await
    }
}

/// Begins to renew the record, which was taken or renewed last by a request sent at `taken`.
pub(crate) fn start(hold: &Arc<Hold>, taken: Instant) -> AbortHandle {
    let renewal = keep_renewing(Renewing(hold.clone()), taken);
    hold.runtime.spawn(renewal).abort_handle()
}

/// However the renewal ends, also with its runtime, the lock is lost to its holder.
struct Renewing(Arc<Hold>);

impl Drop for Renewing {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Renews until the lease is lost. An unknown answer is asked for again.
async fn keep_renewing(renewing: Renewing, taken: Instant) {
    let hold = &renewing.0;
    let interval = hold.ttl / 3;
    let mut next = taken + interval;
    loop {
        tokio::time::sleep_until(next).await;
        let sent = Instant::now();
        let State { deadline, renewed_until, .. } = *hold.state.borrow();
        if renewed_until.is_some_and(|until| until <= sent) {
            break;
        }
        let renewal = hold.renew(sent);
        next = match tokio::time::timeout_at(deadline.min(sent + interval), renewal).await {
            Ok(Ok(true)) => sent + interval,
            Ok(Ok(false)) => break,
            Ok(Err(_)) | Err(_) if Instant::now() >= deadline => break,
            Ok(Err(_)) => Instant::now() + interval / 4,
            Err(_) => Instant::now(),
        };
    }
    // Its holder may have ended it meanwhile.
    if hold.give_up() {
        hold.tell_of_loss();
    }
}

/// Lets the renewal register its timer before the work may block this thread, and another thread of
/// the runtime wake to watch it. tokio's `yield_now` would look at the timers itself in between,
/// and the other thread, finding that done, might go to sleep without them.
pub(crate) async fn stand_back(hold: &Hold) {
    if Handle::try_current().is_ok_and(|current| current.id() != hold.runtime.id()) {
        return;
    }
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
