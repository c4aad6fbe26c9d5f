use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Runs a future inside of its caller's task and, where the caller drops it half-way, goes on as a task of
/// the runtime on which it was made.
///
/// So the work of a request goes on when its client leaves and the server drops the call. A task from
/// the start would cost two changes of thread a call, and would hide what the caller's task has: its
/// task-local values, its span. A panic unwinds through the caller, as without it.
///
/// When it is dropped it is not polled at once, as [`RunToEnd`](crate::coordinate::run_to_end::RunToEnd)
/// is: it runs code of others, whose panic inside of a drop could end the process.
pub(crate) struct Detached<F: Future<Output: Send> + Send + 'static> {
    rest: Option<Pin<Box<F>>>,
    runtime: Option<Handle>,
}

impl<F: Future<Output: Send> + Send + 'static> Detached<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { rest: Some(Box::pin(future)), runtime: Handle::try_current().ok() }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Detached<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out while it runs: what has panicked must not go on.
        let Some(mut rest) = self.rest.take() else { return Poll::Pending };
        let poll = rest.as_mut().poll(cx);
        if poll.is_pending() {
            self.rest = Some(rest);
        }
        poll
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Detached<F> {
    fn drop(&mut self) {
        if let (Some(rest), Some(runtime)) = (self.rest.take(), &self.runtime) {
            runtime.spawn(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_is_dropped_half_way_goes_on() {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let work = {
            let (go, done) = (go.clone(), done.clone());
            async move {
                go.notified().await;
                done.notify_one();
            }
        };
        let mut work = Detached::new(work);
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_never_a_drop() {
        let mut first = true;
        let fails = || {
            std::future::poll_fn(move |_| {
                assert!(std::mem::take(&mut first), "on purpose");
                Poll::<()>::Pending
            })
        };
        let mut work = Detached::new(fails());
        assert!((&mut work).now_or_never().is_none());
        assert!(AssertUnwindSafe(&mut work).catch_unwind().now_or_never().unwrap().is_err());
        assert!(work.rest.is_none());
        let mut left = Detached::new(fails());
        assert!((&mut left).now_or_never().is_none());
        drop(left);
        tokio::task::yield_now().await;
    }

    #[test]
    fn it_needs_no_runtime() {
        assert_eq!(Detached::new(async { 1 }).now_or_never(), Some(1));
        drop(Detached::new(std::future::pending::<()>()));
    }
}
