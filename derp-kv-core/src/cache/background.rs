//! Computations that run on without their callers.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Tasks that end when this is dropped.
pub(crate) struct Background {
    tasks: Mutex<JoinSet<()>>,
    running: watch::Sender<usize>,
}

impl Background {
    pub(crate) fn new() -> Self {
        Self { tasks: Mutex::default(), running: watch::Sender::new(0) }
    }

    /// Runs `work` as a task of this thread's runtime.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let running = Running::new(&self.running);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended are let go of.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _running = running;
            work.await;
        });
    }

    /// Waits until none is left, no longer than `at_most`, and tells whether that came.
    pub(crate) async fn drain(&self, at_most: Duration) -> bool {
        let mut running = self.running.subscribe();
        // The sender lives as long as `self`.
        timeout(at_most, running.wait_for(|running| *running == 0)).await.is_ok()
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("running", &*self.running.borrow()).finish()
    }
}

/// One task, until it has ended, been aborted or panicked.
struct Running(watch::Sender<usize>);

impl Running {
    fn new(running: &watch::Sender<usize>) -> Self {
        running.send_modify(|running| *running += 1);
        Self(running.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}
