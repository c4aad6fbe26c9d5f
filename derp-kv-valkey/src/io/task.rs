//! Background tasks that end with their owner.

use tokio::task::JoinHandle;

/// A background task, stopped when the handle is dropped.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn new(running: JoinHandle<()>) -> Self {
        Self(running)
    }

    pub(crate) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop();
    }
}
