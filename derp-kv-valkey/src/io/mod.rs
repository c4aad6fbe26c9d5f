//! The threads that connections live on, and what runs there in the background.

pub(crate) mod backoff;
pub(crate) mod task;
mod thread;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;
use std::time::{Duration, Instant};

use derp_kv_core::Result;
use tokio::runtime::Handle;
use tokio::time::{Sleep, Timeout};

use crate::io::task::Task;
use crate::io::thread::Thread;

/// One I/O thread, kept alive by this handle.
///
/// Sockets, timers and background tasks belong to it, whatever runtime a caller runs on. A caller
/// may come from a runtime whose clock is paused, whose threads are blocked or which is gone a
/// moment later: the deadlines that are kept here are those of the real clock.
#[derive(Clone, Debug)]
pub(crate) struct Io(Arc<Thread>);

/// The I/O threads that a store uses; at least one.
#[derive(Clone, Debug)]
pub(crate) struct Threads(Arc<[Io]>);

impl Threads {
    /// The first `count` of this process, which all stores share. What is missing is started.
    pub(crate) fn start(count: usize) -> Result<Self> {
        let threads = thread::first(count.max(1))?;
        Ok(Self(threads.into_iter().map(Io).collect()))
    }

    /// The thread of what belongs to no node.
    pub(crate) fn main(&self) -> &Io {
        &self.0[0]
    }

    /// The thread of a node: nodes are spread evenly, by chance.
    pub(crate) fn of(&self, node: impl Hash) -> &Io {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(node);
        &self.0[hash as usize % self.0.len()]
    }
}

impl Io {
    pub(crate) fn handle(&self) -> &Handle {
        self.0.handle()
    }

    /// Runs `future` on the thread until it ends or the task is dropped.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task {
        Task::new(self.handle().spawn(future))
    }

    /// Runs `future` on the thread and waits for it. It ends as well when this wait is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let _task = self.spawn(async move {
            let _ = sender.send(future.await);
        });
        receiver.await.ok()
    }

    pub(crate) fn sleep(&self, pause: Duration) -> Sleep {
        let _on_the_thread = self.handle().enter();
        tokio::time::sleep(pause)
    }

    pub(crate) fn sleep_until(&self, until: Instant) -> Sleep {
        let _on_the_thread = self.handle().enter();
        tokio::time::sleep_until(until.into())
    }

    pub(crate) fn timeout<F: Future>(&self, at_most: Duration, future: F) -> Timeout<F> {
        let _on_the_thread = self.handle().enter();
        tokio::time::timeout(at_most, future)
    }

    pub(crate) fn timeout_at<F: Future>(&self, until: Instant, future: F) -> Timeout<F> {
        let _on_the_thread = self.handle().enter();
        tokio::time::timeout_at(until.into(), future)
    }
}
