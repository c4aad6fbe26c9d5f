//! `wait_for_change`: woken by the write itself.

use std::borrow::Cow;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::keyspace::Keyspace;
use crate::regions::Seen;

/// How long a change may stay unseen that no write announces: an eviction from the evictable region,
/// or a deadline that a manual clock passes. Longer costs hardly less, for a look is cheap.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The check and the registration happen under the lock of the key's shard, under which every
/// change happens too: none falls between them.
pub(crate) async fn wait_for_change(
    keyspace: &Keyspace,
    key: &[u8],
    seen: Option<&[u8]>,
    at_most: Duration,
) {
    let hash = keyspace.hash(key);
    let (number, woken, patience) = {
        let mut shard = keyspace.shard(Keyspace::shard_index(hash)).write();
        let look = |now: Seen<'_>| (Some(&**now.value) == seen, patience(keyspace, &now));
        let (unchanged, patience) = keyspace
            .regions
            .look(&shard, hash, key, &keyspace.regions.now(), look)
            .unwrap_or((seen.is_none(), Duration::MAX));
        if !unchanged {
            return;
        }
        let (number, woken) = shard.waiters.register(hash);
        (number, woken, patience.min(at_most))
    };
    let mut waiter = Registered { keyspace, hash, number, woken };
    // Woken, or out of time: the caller looks again either way.
    let _ = tokio::time::timeout(patience, &mut waiter.woken).await;
}

/// How long to sleep on a value: until it ends, or until it may have ended without a wake-up.
fn patience(keyspace: &Keyspace, seen: &Seen<'_>) -> Duration {
    let left = seen.expiry.remaining();
    let cached = matches!(seen.value, Cow::Owned(_));
    let manual = matches!(keyspace.regions.clock, Clock::Manual(_)) && left.is_some();
    let unannounced = if cached || manual { LOOK_AGAIN } else { Duration::MAX };
    left.map_or(unannounced, |left| left.min(unannounced))
}

/// A registered waiter, which leaves nothing behind when it is dropped.
struct Registered<'a> {
    keyspace: &'a Keyspace,
    hash: u64,
    number: u64,
    woken: oneshot::Receiver<()>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut shard = self.keyspace.shard(Keyspace::shard_index(self.hash)).write();
        shard.waiters.forget(self.hash, self.number);
    }
}
