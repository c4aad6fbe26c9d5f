use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::singleflight::flight::Flight;
use crate::singleflight::flights::Seat;
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;
use crate::singleflight::state::{Baton, Call, End, Sighting};

/// One caller aboard a flight. Dropped, it leaves what it has to the newest waiter.
pub(crate) struct Aboard {
    seat: Seat,
    number: u64,
}

impl Aboard {
    pub(crate) fn new(seat: Seat) -> Self {
        let number = seat.flight.with(|state| state.board());
        Self { seat, number }
    }

    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.seat.flight
    }

    /// Waits until the flight has something for this caller: its end, a duty that fell to it, or
    /// the watch, which it has for as long as it waits.
    ///
    /// Where whoever has the watch has not looked for `idle`, it is taken away from them: a caller
    /// that is not polled must not keep the others from the store.
    ///
    /// # Cancel safety
    ///
    /// A duty is taken in the same poll that returns it.
    pub(crate) async fn called(&mut self, idle: Duration) -> Call {
        // Most have no need of a timer.
        if let Poll::Ready(call) =
            poll_fn(|cx| Poll::Ready(self.flight().with(|state| state.call(self.number, cx)))).await
        {
            return call;
        }
        #[cfg(feature = "mutants")]
        let idle = if self.is(Mutant::QueuesAnew) { idle / 8 } else { idle };
        loop {
            let call = poll_fn(|cx| self.flight().with(|state| state.call(self.number, cx)));
            if let Ok(call) = tokio::time::timeout(idle, call).await {
                return call;
            }
            #[cfg(feature = "mutants")]
            if self.is(Mutant::QueuesAnew) {
                self.number = self.flight().with(|state| state.queue_anew(self.number));
            }
            self.flight().with(|state| state.end_idle_watch(idle));
        }
    }

    /// Waits until the flight has more than the watch for this caller.
    pub(crate) async fn called_away(&self) {
        poll_fn(|cx| self.flight().with(|state| state.call_away(self.number, cx))).await;
    }

    /// Waits for nothing any more: no duty falls to this caller.
    pub(crate) fn stop_waiting(&self) {
        self.flight().with(|state| state.stop_waiting(self.number));
    }

    /// Since when somebody aboard has had the lead.
    pub(crate) fn led_since(&self) -> Option<Instant> {
        self.flight().with(|state| state.led_since())
    }

    /// Notes that another process has the lock.
    pub(crate) fn led_elsewhere(&self) {
        self.flight().with(|state| state.led_elsewhere = true);
    }

    /// Whether anybody is known to be at work, here or elsewhere.
    pub(crate) fn is_led(&self) -> bool {
        self.flight().with(|state| state.led_elsewhere || state.led_since().is_some())
    }

    /// Whether it is this caller that gets what falls free now.
    pub(crate) fn is_next(&self) -> bool {
        self.flight().with(|state| state.is_next(self.number))
    }

    /// Takes the lead, which is free.
    pub(crate) fn take_lead(&self) {
        self.flight().with(|state| state.take_lead(self.number));
    }

    /// Marks the flight with what tells the leader's request from others.
    pub(crate) fn mark(&self, tag: Option<&str>) {
        self.flight().with(|state| state.tag = tag.map(str::to_owned));
    }

    /// What the leader has marked the flight with.
    pub(crate) fn tag(&self) -> Option<String> {
        self.flight().with(|state| state.tag.clone())
    }

    /// Leaves the lead, this caller's or one that is free, to the newest waiter. Where nobody waits,
    /// it is free and the baton comes back.
    pub(crate) fn leave_lead(&self, baton: Baton) -> Option<Baton> {
        self.flight().with(|state| state.leave_lead(self.number, baton))
    }

    /// Frees this caller's lead: whoever has the watch contends for the lock anew.
    pub(crate) fn free_lead(&self) {
        self.flight().with(|state| state.free_lead(self.number));
    }

    /// Frees the lead that fell to this caller, and waits on.
    pub(crate) fn return_lead(&self) {
        self.flight().with(|state| {
            state.free_lead(self.number);
            state.wait(self.number);
        });
    }

    /// When the place beside the lead goes to the next; none while nobody aboard leads.
    pub(crate) fn place_opens(&self, lock_ttl: Duration) -> Option<Instant> {
        self.flight().with(|state| state.place_opens(lock_ttl))
    }

    /// Gives the place beside to the newest waiter, unless somebody has it for less than `lock_ttl`.
    pub(crate) fn open_place(&self, lock_ttl: Duration) {
        self.flight().with(|state| state.open_place(lock_ttl));
    }

    /// Takes the place beside, where it is free and the flight has not ended.
    pub(crate) fn take_place(&self, lock_ttl: Duration) -> bool {
        self.flight().with(|state| state.take_place(self.number, lock_ttl))
    }

    /// Notes why nothing that is computed aboard can be stored.
    pub(crate) fn cannot_keep(&self, why: ErrorKind) {
        self.flight().with(|state| state.unkept = Some(why));
    }

    /// Why nothing that is computed aboard can be stored, where that is known.
    pub(crate) fn unkept(&self) -> Option<ErrorKind> {
        self.flight().with(|state| state.unkept)
    }

    pub(crate) fn sighting(&self) -> Option<Sighting> {
        self.flight().with(|state| state.sighting.clone())
    }

    pub(crate) fn sight(&self, sighting: Sighting) {
        self.flight().with(|state| state.sighting = Some(sighting));
    }

    /// Whether what is computed aboard is out of date.
    pub(crate) fn is_outdated(&self) -> bool {
        self.flight().with(|state| state.outdated)
    }

    /// Gives `value` to all aboard and ends the flight.
    pub(crate) fn land(&self, value: Bytes, gone_at: Option<Instant>) {
        self.seat.close();
        self.flight().land(value, gone_at);
    }

    /// Tells all who wait that a computation has failed, and when it is tried again; ends the flight.
    pub(crate) fn fail(&self, again_at: Option<Instant>) {
        #[cfg(feature = "mutants")]
        if self.is(Mutant::HandsFailuresOver) {
            return;
        }
        self.seat.close();
        self.flight().with(|state| state.end(End::Failed { again_at }));
    }

    /// Sends all who wait to the store themselves, and ends the flight; `error` is what it said.
    pub(crate) fn break_up(&self, error: &Error) {
        self.seat.close();
        self.flight().with(|state| state.end(End::Broken(error.copy())));
    }

    #[cfg(feature = "mutants")]
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.flight().with(|state| state.is(mutant))
    }
}

impl Drop for Aboard {
    fn drop(&mut self) {
        // What it frees may come back to the flight, which is unlocked by then.
        drop(self.flight().with(|state| state.leave(self.number)));
    }
}
