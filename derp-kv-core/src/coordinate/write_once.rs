//! Records that are written once, by the holder of a lease, after work that must not run again.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::coordinate::lease::Lease;
use crate::coordinate::run_to_end::RunToEnd;
use crate::error::{Error, ErrorKind, Result};
use crate::store::kv_store::KvStore;

/// How a record came to be, or which one was there before.
pub(crate) enum Written {
    Now,
    /// The small record stands in its place; this is why.
    Instead(Error),
    Before(Bytes),
}

/// A record to write, and how.
pub(crate) struct WriteOnce {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    /// A small record, to be written where the store does not take `value`.
    pub(crate) instead: Option<Bytes>,
    pub(crate) ttl: Duration,
    /// Between two tries.
    pub(crate) pause: Duration,
    /// After which a failing write is given up.
    pub(crate) patience: Duration,
}

impl WriteOnce {
    /// Writes the record, unless another is there. The work is done, and is recorded although the
    /// caller goes away.
    pub(crate) async fn write(self, lease: Lease) -> Result<Written> {
        RunToEnd::new(self.write_here(lease)).await
    }

    /// What stands between the work and its repetition is this record. So a failure is tried
    /// again for as long as the lease holds and patience lasts, and on failing for good the lease
    /// is left to its expiry rather than freed for the next caller.
    ///
    /// A record that the store refuses is given up for the small one at once. So is one that was
    /// not taken before patience ended, which may be for its size: a large body can take longer
    /// than the store's deadline each time.
    pub(crate) async fn write_here(self, lease: Lease) -> Result<Written> {
        let store = &lease.hold().store;
        let give_up = Instant::now() + self.patience;
        let mut instead = self.instead.as_ref();
        let mut value = &self.value;
        let mut refusal = None;
        // Whether a try before this one may have written a record.
        let mut tried = false;
        loop {
            let error = match self.try_write(store, value).await {
                Ok((found, fresh)) => {
                    // Where the release fails, it goes on in the background.
                    let _ = lease.release().await;
                    // The record itself may be there although it was given up, where the answer to
                    // the try that wrote it was lost.
                    return Ok(match refusal {
                        _ if !fresh && !tried => Written::Before(found),
                        _ if found == self.value => Written::Now,
                        Some(refusal) if found == value => Written::Instead(refusal),
                        _ => Written::Before(found),
                    });
                }
                Err(error) => error,
            };
            tried |= error.may_have_applied();
            let left = give_up.saturating_duration_since(Instant::now());
            let never = error.kind() == ErrorKind::InvalidArgument;
            if (never || error.kind() == ErrorKind::Full || left.is_zero())
                && let Some(small) = instead.take()
            {
                value = small;
                refusal = Some(error);
                continue;
            }
            if never || left.is_zero() || lease.is_lost() {
                lease.abandon();
                return Err(error.with_may_have_applied(true));
            }
            tokio::time::sleep(self.pause.min(left)).await;
        }
    }

    /// Writes `value` unless a record is there. Returns the one that then is, and whether this wrote it.
    async fn try_write(&self, store: &dyn KvStore, value: &Bytes) -> Result<(Bytes, bool)> {
        if store.set_nx(&self.key, value, Some(self.ttl)).await? {
            return Ok((value.clone(), true));
        }
        // It is ours after all, where the answer to an earlier try was lost.
        let found = store.get(&self.key).await?;
        let found = found.map(|found| (found, false));
        found.ok_or_else(|| Error::new(ErrorKind::Backend, "the record was there, and is gone"))
    }
}
