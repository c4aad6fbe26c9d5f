use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::coordinate::cooldown;
use crate::coordinate::lease::Lease;
use crate::coordinate::renewal::Hold;
use crate::coordinate::run_to_end::RunToEnd;
use crate::error::{Error, ErrorKind, Result};
use crate::singleflight::aboard::Aboard;
use crate::singleflight::flight::Flight;
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;

/// The right to work under the lock's lease. Dropped before the work has ended, it goes to the
/// newest waiter, and the lease with it.
pub(crate) struct Lead {
    aboard: Aboard,
    /// None once the work has ended.
    lease: Option<Lease>,
}

impl Lead {
    pub(crate) fn new(aboard: Aboard, lease: Lease) -> Self {
        Self { aboard, lease: Some(lease) }
    }

    /// The flight of which the work is.
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        self.aboard.flight()
    }

    /// Ends work that failed: everybody who waits for it is told so. The lock is freed, or stands for
    /// `backoff` as a sign that nobody is to try.
    pub(crate) async fn fail(&mut self, backoff: Option<Duration>) {
        let Some(backoff) = backoff else {
            self.aboard.fail(Some(Instant::now()));
            self.free().await;
            return;
        };
        // First, so that nobody is told a moment that is too early.
        let again_at = match self.cool_down(backoff).await {
            Ok(true) => Some(Instant::now() + cooldown::lasts(backoff)),
            // The lock was somebody else's, or gone: an invalidation lets the next caller try.
            Ok(false) => Some(Instant::now()),
            Err(_) => None,
        };
        self.aboard.fail(again_at);
    }

    /// Leaves the lock as a sign that nobody is to try for `backoff`, and tells whether it was held to
    /// the end.
    pub(crate) async fn cool_down(&mut self, backoff: Duration) -> Result<bool> {
        match self.lease.take() {
            Some(lease) => RunToEnd::new(lease.cool_down(backoff)).await,
            None => Ok(false),
        }
    }

    /// Frees the lock. Where that fails, it goes on in the background.
    pub(crate) async fn free(&mut self) {
        if let Some(lease) = self.lease.take() {
            let _ = lease.release().await;
        }
    }

    /// Frees the lock in the background.
    pub(crate) fn let_go(&mut self) {
        match self.lease.take() {
            #[cfg(feature = "mutants")]
            Some(lease)
                if std::thread::panicking() && self.aboard.is(Mutant::KeepsThePanicsLock) =>
            {
                lease.abandon();
            }
            lease => drop(lease),
        }
    }

    /// Lets the lock be renewed for so long from now on, and no longer.
    pub(crate) fn renew_for(&self, how_long: Duration) {
        if let Some(lease) = &self.lease {
            lease.renew_for(how_long);
        }
    }

    /// The lock's record; none once the work has ended.
    pub(crate) fn hold(&self) -> Option<Arc<Hold>> {
        self.lease.as_ref().map(Lease::hold)
    }

    /// Ends the work. The lease is the caller's, to store what came of it.
    pub(crate) fn end(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// Gives `result` to all who wait.
    pub(crate) fn land(&self, result: Bytes) {
        self.aboard.land(result, None);
    }

    /// Sends all who wait to the store themselves; `error` is what it said.
    pub(crate) fn break_up(&self, error: &Error) {
        self.aboard.break_up(error);
    }

    /// Whether an invalidation in this process came after the work began.
    pub(crate) fn is_outdated(&self) -> bool {
        self.aboard.is_outdated()
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        match self.lease.take() {
            // An invalidation has deleted the lock of work that it outdated.
            Some(lease) if !lease.is_lost() && !self.aboard.is_outdated() => {
                drop(self.aboard.leave_lead(Box::new(lease)));
            }
            _ => self.aboard.free_lead(),
        }
    }
}

/// The right to work although somebody else holds the lock. Dropped before the work has ended, it
/// goes to the newest waiter.
pub(crate) struct Beside {
    aboard: Aboard,
}

impl Beside {
    pub(crate) fn new(aboard: Aboard) -> Self {
        Self { aboard }
    }

    /// Why the result cannot be stored, where that is known.
    pub(crate) fn unkept(&self) -> Option<ErrorKind> {
        self.aboard.unkept()
    }

    /// The flight of which the work is.
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        self.aboard.flight()
    }

    /// Gives `result` to all who wait.
    pub(crate) fn land(self, result: Bytes) {
        self.aboard.land(result, None);
    }

    /// Tells all who wait that the work failed.
    pub(crate) fn fail(self) {
        self.aboard.fail(None);
    }
}
