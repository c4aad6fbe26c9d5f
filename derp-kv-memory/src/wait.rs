//! `wait_for_change`: woken by the write itself.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::inner::Inner;

/// The check and the registration happen under the lock of the key's shard, under which every
/// change happens too: none falls between them.
pub(crate) async fn wait_for_change(
    inner: &Inner,
    key: &[u8],
    seen: Option<&[u8]>,
    at_most: Duration,
) {
    let hash = inner.hash(key);
    let ((number, woken), expires_in) = {
        let mut shard = inner.shard(Inner::shard_index(hash)).write();
        let look = |now: crate::slot::Seen<'_>| (Some(&**now.value) == seen, now.expiry());
        let (unchanged, expiry) = match inner.look(&shard, hash, key, look) {
            Some((unchanged, expiry)) => (unchanged, expiry.remaining()),
            None => (seen.is_none(), None),
        };
        if !unchanged {
            return;
        }
        (shard.waiters.register(hash), expiry)
    };
    let mut waiter = Registered { inner, hash, number, woken };
    let patience = expires_in.map_or(at_most, |left| left.min(at_most));
    // Woken, or out of time: the caller looks again either way.
    let _ = tokio::time::timeout(patience, &mut waiter.woken).await;
}

/// A registered waiter, which leaves nothing behind when it is dropped.
struct Registered<'a> {
    inner: &'a Inner,
    hash: u64,
    number: u64,
    woken: oneshot::Receiver<()>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut shard = self.inner.shard(Inner::shard_index(self.hash)).write();
        shard.waiters.forget(self.hash, self.number);
    }
}
