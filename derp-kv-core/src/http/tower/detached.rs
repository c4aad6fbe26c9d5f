use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::observe::span::Current;

/// Runs a future inside of its caller's task and, where the caller drops it once it has said that it
/// [goes on](GoesOn), as a task of the runtime on which it was made.
///
/// So the work of a request goes on when its client leaves and the server drops the call. A task from
/// the start would cost two changes of thread a call, and would hide what the caller's task has: its
/// task-local values, its span. A panic unwinds through the caller, as without it.
///
/// When it is dropped it is not polled at once, as [`RunToEnd`](crate::coordinate::run_to_end::RunToEnd)
/// is: it runs code of others, whose panic inside of a drop could end the process.
pub(crate) struct Detached<T: 'static> {
    rest: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    runtime: Option<Handle>,
    span: Current,
    goes_on: GoesOn,
}

/// Whether a future goes on whatever becomes of its caller.
#[derive(Clone, Default)]
pub(crate) struct GoesOn(Arc<AtomicBool>);

impl GoesOn {
    /// It does from now on.
    pub(crate) fn set(&self) {
        // Only the one that polls and drops the future looks at it.
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T: 'static> Detached<T> {
    pub(crate) fn new<F>(future: impl FnOnce(GoesOn) -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let goes_on = GoesOn::default();
        let rest = Box::pin(future(goes_on.clone()));
        let (runtime, span) = (Handle::try_current().ok(), Current::new());
        Self { rest: Some(rest), runtime, span, goes_on }
    }
}

impl<T: 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Taken out while it runs: what has panicked must not go on.
        let Some(mut rest) = self.rest.take() else { return Poll::Pending };
        let poll = rest.as_mut().poll(cx);
        if poll.is_pending() {
            self.rest = Some(rest);
        }
        poll
    }
}

impl<T: 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        if let (Some(rest), Some(runtime)) = (self.rest.take(), &self.runtime)
            && self.goes_on.0.load(Ordering::Relaxed)
        {
            runtime.spawn(self.span.around(async move { drop(rest.await) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt as _;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_is_dropped_half_way_goes_on_once_it_has_said_so() {
        for says_so in [true, false] {
            let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let mut work = {
                let (go, done) = (go.clone(), done.clone());
                Detached::new(async move |goes_on: GoesOn| {
                    if says_so {
                        goes_on.set();
                    }
                    go.notified().await;
                    done.notify_one();
                })
            };
            assert!((&mut work).now_or_never().is_none());
            assert_eq!(Arc::strong_count(&done), 2);
            drop(work);
            go.notify_one();
            match says_so {
                true => done.notified().await,
                false => assert_eq!(Arc::strong_count(&done), 1),
            }
        }
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_never_a_drop() {
        let fails = |goes_on: GoesOn| {
            goes_on.set();
            let mut first = true;
            std::future::poll_fn(move |_| {
                assert!(std::mem::take(&mut first), "on purpose");
                Poll::<()>::Pending
            })
        };
        let mut work = Detached::new(fails);
        assert!((&mut work).now_or_never().is_none());
        assert!(AssertUnwindSafe(&mut work).catch_unwind().now_or_never().unwrap().is_err());
        assert!(work.rest.is_none());
        let mut left = Detached::new(fails);
        assert!((&mut left).now_or_never().is_none());
        drop(left);
        tokio::task::yield_now().await;
    }

    #[test]
    fn it_needs_no_runtime() {
        assert_eq!(Detached::new(async |_| 1).now_or_never(), Some(1));
        drop(Detached::new(|goes_on: GoesOn| {
            goes_on.set();
            std::future::pending::<()>()
        }));
    }
}
