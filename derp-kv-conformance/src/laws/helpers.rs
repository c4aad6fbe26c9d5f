//! What the helpers promise, each over several handles on the same data, as several processes
//! have them.

mod abandoned;
mod dedup;
mod guarded_get;
mod idempotency;
mod lease;
mod limits;
mod names;
mod rate_limit;
mod replies;
mod succession;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use derp_kv_core::{Error, KvStore};
use tokio::sync::Notify;

use crate::resolution;
use crate::violation::{Violation, ensure};

pub(crate) use abandoned::*;
pub(crate) use dedup::*;
pub(crate) use guarded_get::*;
pub(crate) use idempotency::*;
pub(crate) use lease::*;
pub(crate) use limits::*;
pub(crate) use names::*;
pub(crate) use rate_limit::*;
pub(crate) use replies::*;
pub(crate) use succession::*;

/// No test waits for this to pass.
const LONG: Duration = Duration::from_secs(60);

/// A lock TTL that a law outlasts. The third of it, after which a lease is renewed, is longer than
/// a loaded machine keeps a task waiting.
const LOCK: Duration = Duration::from_secs(1);

/// A [`LOCK`] of which a store of a coarse resolution tells whether it was renewed.
fn lock_ttl() -> Duration {
    LOCK * resolution::stretch()
}

/// Work that takes a moment.
const WORK: Duration = Duration::from_millis(30);

/// Whether helpers refuse the key of a cached value: it would reach what they keep themselves.
pub(crate) fn is_reserved(key: &[u8]) -> bool {
    RESERVED_ENDS.iter().any(|end| key.ends_with(end.as_bytes()))
        || RESERVED_BEGINNINGS.iter().any(|begin| key.starts_with(begin.as_bytes()))
}

const RESERVED_ENDS: [&str; 2] = [":lock", ":attempt"];

const RESERVED_BEGINNINGS: [&str; 3] = ["derp:idempotency:", "derp:webhook:", "derp:ratelimit:"];

/// How often something ran.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(Arc<AtomicU32>);

impl Runs {
    /// Counts a run, and tells how many there were before.
    pub(crate) fn begin(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Work that goes on until it is let go, so that others meet it while it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    pub(crate) begun: Arc<Notify>,
    pub(crate) open: Arc<Notify>,
}

impl Gate {
    pub(crate) async fn pass(&self) {
        self.begun.notify_one();
        self.open.notified().await;
    }
}

/// What a helper's closure fails with.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The work itself.
    Work,
    Store(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<Failed> for Violation {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Work => Self::new("a caller got an error of work that was not its own"),
            Failed::Store(error) => error.into(),
        }
    }
}

/// Waits until the key is absent, which happens in the background.
pub(crate) async fn until_absent(kv: &impl KvStore, key: &[u8]) -> Result<(), Violation> {
    for _ in 0..1_000 {
        if !kv.exists(key).await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let key = key.escape_ascii();
    ensure!(false, "`{key}` stays, which was to be freed at once");
    Ok(())
}
