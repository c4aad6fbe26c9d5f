use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Runs a future to its end although its caller may go away: dropped half-way, it goes on as a
/// task of its own, where there is a runtime.
///
/// A task from the start would do as well, at the price of two changes of thread a call.
pub(crate) struct Finish<F: Future<Output: Send> + Send + 'static> {
    rest: Option<Pin<Box<F>>>,
}

impl<F: Future<Output: Send> + Send + 'static> Finish<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { rest: Some(Box::pin(future)) }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Finish<F> {
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

impl<F: Future<Output: Send> + Send + 'static> Drop for Finish<F> {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                rest.await;
            });
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
        let mut finish = Finish::new(work);
        assert!((&mut finish).now_or_never().is_none());
        drop(finish);
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn what_is_never_polled_goes_on_too() {
        let done = Arc::new(Notify::new());
        let work = done.clone();
        drop(Finish::new(async move { work.notify_one() }));
        done.notified().await;
    }

    #[tokio::test]
    async fn what_has_panicked_is_not_run_again() {
        let mut finish = Finish::new(async { panic!("on purpose") });
        let caught = std::panic::AssertUnwindSafe(&mut finish).catch_unwind().await;
        assert!(caught.is_err() && finish.rest.is_none());
    }

    #[test]
    fn it_needs_no_runtime() {
        assert_eq!(Finish::new(async { 1 }).now_or_never(), Some(1));
        drop(Finish::new(std::future::pending::<()>()));
    }
}
