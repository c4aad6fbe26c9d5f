//! Records that are written once, by the holder of a lease, after work that must not run again.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::coordinate::lease::Lease;
use crate::coordinate::run_to_end::Finish;
use crate::error::{Error, ErrorKind, Result};
use crate::store::kv_store::KvStore;

/// How a record came to be, or which one was there before.
pub(crate) enum Written {
    Now,
    Before(Bytes),
}

/// A record to write, and how.
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) ttl: Duration,
    /// Between two tries.
    pub(crate) pause: Duration,
    /// After which a failing write is given up.
    pub(crate) patience: Duration,
}

impl Record {
    /// Writes the record, unless another is there. The work is done, and is recorded although the
    /// caller goes away.
    pub(crate) async fn write<S: KvStore + Clone>(
        self,
        store: &S,
        lease: Lease,
    ) -> Result<Written> {
        let store = store.clone();
        Finish::new(async move { self.write_here(&store, lease).await }).await
    }

    /// What stands between the work and its repetition is this record. So a failure is tried
    /// again for as long as the lease holds and patience lasts, and on failing for good the lease
    /// is left to its expiry rather than freed for the next caller.
    async fn write_here<S: KvStore>(self, store: &S, lease: Lease) -> Result<Written> {
        let give_up = Instant::now() + self.patience;
        loop {
            let error = match self.try_write(store).await {
                Ok(written) => {
                    // Where the release fails, it goes on in the background.
                    let _ = lease.release().await;
                    return Ok(written);
                }
                Err(error) => error,
            };
            let left = give_up.saturating_duration_since(Instant::now());
            let never = error.kind() == ErrorKind::InvalidArgument;
            if never || left.is_zero() || lease.is_lost() {
                lease.abandon();
                return Err(error.with_may_have_applied(true));
            }
            tokio::time::sleep(self.pause.min(left)).await;
        }
    }

    async fn try_write<S: KvStore>(&self, store: &S) -> Result<Written> {
        if store.set_nx(&self.key, &self.value, Some(self.ttl)).await? {
            return Ok(Written::Now);
        }
        match store.get(&self.key).await? {
            // Ours after all, where the answer to an earlier try was lost.
            Some(found) if found == self.value => Ok(Written::Now),
            Some(found) => Ok(Written::Before(found)),
            None => Err(Error::new(ErrorKind::Backend, "the record was there, and is gone")),
        }
    }
}
