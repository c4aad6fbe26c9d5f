//! A thread of this process that runs nothing but I/O.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use derp_kv_core::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The threads that some store uses, in the order in which they were asked for.
static THREADS: Mutex<Vec<Weak<Thread>>> = Mutex::new(Vec::new());

/// Ends, with everything that runs on it, when the last store that uses it is dropped.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: Handle,
    /// Its end tells the thread to end. Nobody waits for that: the last store may be dropped
    /// anywhere, also on the thread itself.
    _alive: oneshot::Sender<()>,
}

/// The first `count` threads; those that do not run are started.
pub(super) fn first(count: usize) -> Result<Vec<Arc<Thread>>> {
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    if threads.len() < count {
        threads.resize_with(count, Weak::new);
    }
    let first = threads.iter_mut().take(count).map(|place| match place.upgrade() {
        Some(thread) => Ok(thread),
        None => {
            let thread = Arc::new(Thread::start()?);
            *place = Arc::downgrade(&thread);
            Ok(thread)
        }
    });
    first.collect()
}

impl Thread {
    fn start() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(refused)?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel();
        let run = move || {
            let _ = runtime.block_on(ended);
            // A name server that hangs must not hold up the end of the thread.
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("derp-kv-io".to_owned()).spawn(run).map_err(refused)?;
        Ok(Self { handle, _alive: alive })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

fn refused(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the system refuses an I/O thread").with_source(error)
}
