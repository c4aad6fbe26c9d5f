use std::pin::Pin;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::observe::call_outcome::CallOutcome;
use crate::observe::event::Event;
use crate::observe::observer::Observer;
use crate::observe::raised::Failure;
use crate::observe::span::CallSpan;
use crate::operation::Operation;

/// Makes a helper's call: in a span of its own, and told to the observer when it has ended, however that
/// was.
///
/// The work is pinned where it is made: moved into here it would be copied, and be in the call's future
/// twice.
pub(crate) async fn call<T, E: Failure>(
    observer: Option<&dyn Observer>,
    operation: Operation,
    work: Pin<&mut impl Future<Output = Result<T, E>>>,
    outcome: impl FnOnce(&T) -> CallOutcome,
) -> Result<T, E> {
    let call = Call::new(observer, operation);
    let result = call.span.around(work).await;
    call.ended(match &result {
        Ok(answer) => outcome(answer),
        Err(error) => error.outcome(),
    });
    result
}

/// Awaits the work of a call, to which the call itself was given, inside of the call's span. What is called
/// so often that a future around it would show takes this in the place of [`call`]; it is a macro for that
/// reason.
macro_rules! in_span {
    ($call:ident, $work:expr) => {
        match $call.span.enabled() {
            Some(span) => span.around($work).await,
            None => $work.await,
        }
    };
}
pub(crate) use in_span;

/// A helper's call that is under way. Dropped, it tells that its caller went away.
pub(crate) struct Call<'a> {
    observer: Option<&'a dyn Observer>,
    operation: Operation,
    /// None where nobody wants to know.
    began: Option<Instant>,
    pub(crate) span: CallSpan,
    /// How many answers are still to be told.
    open: usize,
}

impl<'a> Call<'a> {
    #[inline]
    pub(crate) fn new(observer: Option<&'a dyn Observer>, operation: Operation) -> Self {
        let began = observer.map(|_| Instant::now());
        Self { observer, operation, began, span: CallSpan::new(operation), open: 1 }
    }

    /// A call for so many keys, each of which has an answer.
    pub(crate) fn of_keys(mut self, keys: usize) -> Self {
        self.span.batch(keys);
        self.open = keys;
        self
    }

    /// Tells what came of it.
    #[inline]
    pub(crate) fn ended(mut self, outcome: CallOutcome) {
        self.end(outcome);
    }

    /// Tells that the library or the store refuses it, and returns why.
    pub(crate) fn refused<E: From<Error>>(self, error: Error) -> E {
        self.ended(error.outcome());
        error.into()
    }

    /// Tells that the caller's own code failed, and returns its error.
    pub(crate) fn failed<E>(self, error: E) -> E {
        self.ended(CallOutcome::Failed);
        error
    }

    /// Tells what came of it for each of the keys that it was for; the span has what came of it as a whole.
    pub(crate) fn ended_each(
        mut self,
        whole: CallOutcome,
        outcomes: impl Iterator<Item = CallOutcome>,
    ) {
        self.open = 0;
        self.span.ended(whole);
        outcomes.for_each(|outcome| self.tell(outcome));
    }

    #[inline]
    fn end(&mut self, outcome: CallOutcome) {
        // First: nothing is told twice, whatever comes of the telling.
        let open = std::mem::take(&mut self.open);
        self.span.ended(outcome);
        for _ in 0..open {
            self.tell(outcome);
        }
    }

    #[inline]
    fn tell(&self, outcome: CallOutcome) {
        let took = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        let event = Event::Answered { operation: self.operation, outcome, took };
        self.span.inside(|| event.tell(self.observer));
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.open > 0 {
            // A panic is one of the caller's own code.
            let panics = std::thread::panicking();
            self.end(if panics { CallOutcome::Failed } else { CallOutcome::Dropped });
        }
    }
}
