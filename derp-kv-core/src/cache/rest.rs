//! The pause after a refresh, or a try for one, within one process.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::cache::tell::OPERATION;
use crate::coordinate::work::Lead;
use crate::observe::event::Event;
use crate::singleflight::flight::Flight;
use crate::store::kv_store::KvStore;

/// How long this process leaves a refresh alone that is not to be tried for `backoff`. It is tried earlier
/// where the value is another one by then: another process has stored it.
pub(crate) fn rest(backoff: Option<Duration>, retry_delay: Duration) -> Duration {
    backoff.unwrap_or_default().max(retry_delay)
}

/// Keeps a place in the flight of a refresh for so long. Without a runtime it goes at once.
pub(crate) fn keep_for(flight: &Arc<Flight>, place: impl Send + 'static, how_long: Duration) {
    flight.is_over_after(how_long);
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            tokio::time::sleep(how_long).await;
            drop(place);
        });
    }
}

/// The lead of a refresh that is under way. One that panics, is dropped by its caller or hangs until nobody
/// wants it any more frees its lock, and is not begun again at once.
pub(crate) struct Refreshing {
    /// None once it has ended.
    lead: Option<Lead>,
    flight: Arc<Flight>,
    store: Arc<dyn KvStore>,
    pause: Duration,
}

impl Refreshing {
    pub(crate) fn new<S>(store: &S, lead: Lead, pause: Duration) -> Self
    where
        S: KvStore + Clone,
    {
        let flight = lead.flight().clone();
        Self { lead: Some(lead), flight, store: Arc::new(store.clone()), pause }
    }

    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    pub(crate) fn renew_for(&self, how_long: Duration) {
        if let Some(lead) = &self.lead {
            lead.renew_for(how_long);
        }
    }

    /// Ends the refresh. What comes of it is the caller's to say.
    pub(crate) fn end(&mut self) -> Option<Lead> {
        self.lead.take()
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        let Some(mut lead) = self.lead.take() else { return };
        lead.let_go();
        Event::RefreshFailed { operation: OPERATION }.tell(self.store.observer());
        self.flight.fail();
        keep_for(&self.flight, lead, self.pause);
    }
}
