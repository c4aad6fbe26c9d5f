use bytes::Bytes;

use crate::coordinate::lease::Lease;
use crate::coordinate::nesting::computing;
use crate::error::{Error, ErrorKind, Result};
use crate::singleflight::aboard::Aboard;

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

    /// Does the work. Where it fails, everybody who waits for it is told so, and the lock is freed.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the work goes on, it leaves the lead to the newest waiter.
    pub(crate) async fn work<T, E>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let result = computing(self.aboard.flight(), work).await;
        if result.is_err() {
            self.aboard.fail(true);
            if let Some(lease) = self.lease.take() {
                // Where the release fails, it goes on in the background.
                let _ = lease.release().await;
            }
        }
        result
    }

    /// Ends the work. The lease is the caller's, to store what came of it.
    pub(crate) fn end(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// Gives `result` to all who wait.
    pub(crate) fn land(&self, result: Bytes) {
        self.aboard.land(result);
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
            Some(lease) if !lease.is_lost() => drop(self.aboard.leave_lead(Box::new(lease))),
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

    /// Does the work, and gives its result to all who wait, or tells them that it failed.
    pub(crate) async fn work<E>(
        self,
        work: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Bytes, E> {
        let result = computing(self.aboard.flight(), work).await;
        match &result {
            Ok(result) => self.aboard.land(result.clone()),
            Err(_) => self.aboard.fail(false),
        }
        result
    }
}
