use crate::observe::event::Event;
use crate::observe::observer::Observer;
use crate::observe::span;

impl Event<'_> {
    /// Tells whoever watches: the observer, where there is one, and with the feature `tracing` its
    /// subscriber, where an operator should hear of the event.
    pub fn tell(self, observer: Option<&dyn Observer>) {
        span::event(&self);
        if let Some(observer) = observer {
            observer.event(self);
        }
    }
}
