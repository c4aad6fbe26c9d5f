//! What stands in the place of the spans without the feature `tracing`: nothing.

use crate::observe::call_outcome::CallOutcome;
use crate::observe::event::Event;
use crate::operation::Operation;

pub(crate) struct CallSpan;

impl CallSpan {
    pub(crate) fn new(_: Operation) -> Self {
        Self
    }

    pub(crate) fn enabled(&self) -> Option<Current> {
        None
    }

    pub(crate) fn inside(&self, work: impl FnOnce()) {
        work();
    }

    #[expect(clippy::unused_self, reason = "there is one with the feature `tracing`")]
    pub(crate) fn around<F: Future>(&self, call: F) -> F {
        call
    }

    pub(crate) fn batch(&self, _: usize) {}

    pub(crate) fn ended(&self, _: CallOutcome) {}
}

pub(crate) fn waits() {}

pub(crate) fn waiting<F: Future>(for_it: F) -> F {
    for_it
}

pub(crate) fn refreshing<F: Future>(_: Operation, refresh: F) -> F {
    refresh
}

pub(crate) struct Current;

impl Current {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn around<F: Future>(&self, work: F) -> F {
        work
    }
}

pub(crate) fn event(_: &Event<'_>) {}
