use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::observe::event::Event;
use crate::observe::observer::Observer;
use crate::observe::span;

impl Event<'_> {
    /// Tells whoever watches: the observer, where there is one, and with the feature `tracing` its
    /// subscriber, where an operator should hear of the event.
    ///
    /// An observer that panics harms nobody but itself: the panic is caught, and goes on the way that
    /// panics are reported in the process.
    #[inline]
    pub fn tell(self, observer: Option<&dyn Observer>) {
        span::event(&self);
        if let Some(observer) = observer {
            // It may be told within a drop, where a second panic would end the process.
            let _ = catch_unwind(AssertUnwindSafe(|| observer.event(self)));
        }
    }
}
