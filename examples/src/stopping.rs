//! That the service is about to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Tells whether the service is about to stop, and how many requests it must answer before. Clones are
/// handles of the same.
#[derive(Clone, Debug)]
pub struct Stopping(Arc<watch::Sender<bool>>);

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(#[expect(dead_code, reason = "it is counted")] watch::Receiver<bool>);

impl Stopping {
    /// It is not.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Whether it is.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// From now on the service is about to stop. Waits until the requests are answered that were under way
    /// before, and for `least` in any case; meanwhile it goes on to answer others, so that who asks for its
    /// health hears of it.
    pub async fn begin(&self, least: Duration) {
        self.0.send_replace(true);
        tokio::join!(self.0.closed(), tokio::time::sleep(least));
    }

    /// Notes a request, unless nobody waits for it.
    pub(crate) fn request(&self) -> Option<UnderWay> {
        let receiver = self.0.subscribe();
        (!self.has_begun()).then_some(UnderWay(receiver))
    }
}

impl Default for Stopping {
    fn default() -> Self {
        Self::new()
    }
}
