use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

use crate::observe::span::Current;

/// Runs `future` to its end without anybody waiting for it: as far as it comes at once, and then on
/// `runtime`, whichever thread this is.
///
/// That it begins at once matters where the runtime has stopped being driven: what needs no waiting,
/// such as freeing a lock of a store in memory, is done when this returns.
pub(crate) fn run_detached<F>(runtime: &Handle, future: F)
where
    F: Future<Output: Send> + Send + 'static,
{
    let _context = runtime.enter();
    let mut future = Box::pin(Current::new().around(future));
    if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        runtime.spawn(async move {
            future.await;
        });
    }
}

/// Runs a future to its end although its caller may go away: dropped half-way, on any thread, it
/// goes on as a task of the runtime on which it was made.
///
/// A task from the start would do as well, at the price of two changes of thread a call.
pub(crate) struct RunToEnd<F: Future<Output: Send> + Send + 'static> {
    rest: Option<Pin<Box<F>>>,
    runtime: Option<Handle>,
    span: Current,
}

impl<F: Future<Output: Send> + Send + 'static> RunToEnd<F> {
    pub(crate) fn new(future: F) -> Self {
        let (runtime, span) = (Handle::try_current().ok(), Current::new());
        Self { rest: Some(Box::pin(future)), runtime, span }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for RunToEnd<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out while it runs: what has panicked must not be run again.
        let Some(mut rest) = self.rest.take() else { return Poll::Pending };
        let poll = rest.as_mut().poll(cx);
        if poll.is_pending() {
            self.rest = Some(rest);
        }
        poll
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for RunToEnd<F> {
    fn drop(&mut self) {
        if let (Some(rest), Some(runtime)) = (self.rest.take(), &self.runtime) {
            run_detached(runtime, self.span.around(rest));
        }
    }
}

#[cfg(test)]
mod tests {
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
        let mut rest = RunToEnd::new(work);
        assert!((&mut rest).now_or_never().is_none());
        drop(rest);
        go.notify_one();
        done.notified().await;
    }

    #[test]
    fn what_is_dropped_outside_of_the_runtime_goes_on_there() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let rest = {
            let _context = runtime.enter();
            let (go, done) = (go.clone(), done.clone());
            RunToEnd::new(async move {
                go.notified().await;
                done.notify_one();
            })
        };
        drop(rest);
        go.notify_one();
        runtime.block_on(done.notified());
    }

    #[test]
    fn what_needs_no_waiting_is_done_at_once_though_nobody_drives_the_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let done = Arc::new(Notify::new());
        let work = done.clone();
        let rest = {
            let _context = runtime.enter();
            RunToEnd::new(async move { work.notify_one() })
        };
        drop(rest);
        assert!(done.notified().now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_has_panicked_is_not_run_again() {
        let mut rest = RunToEnd::new(async { panic!("on purpose") });
        let caught = std::panic::AssertUnwindSafe(&mut rest).catch_unwind().await;
        assert!(caught.is_err() && rest.rest.is_none());
    }

    #[test]
    fn it_needs_no_runtime() {
        assert_eq!(RunToEnd::new(async { 1 }).now_or_never(), Some(1));
        drop(RunToEnd::new(std::future::pending::<()>()));
    }
}
