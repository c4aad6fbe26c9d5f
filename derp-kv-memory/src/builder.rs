use std::time::Duration;

use crate::clock::ManualClock;
use crate::store::MemoryStore;

/// What a bounded store does with a write for which it has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFull {
    /// Evict the values least recently used among those written by `set` and `mset`. What
    /// `set_nx`, `incr` and `compare_and_*` wrote is never evicted; where that alone reaches the
    /// bound, further writes of that kind fail with [`Full`](derp_kv_core::ErrorKind::Full).
    #[default]
    EvictCached,
    /// Evict nothing: the write fails with [`Full`](derp_kv_core::ErrorKind::Full). Space comes
    /// back with deletions and as TTLs pass.
    Reject,
}

/// Options of a [`MemoryStore`]; [`MemoryStore::builder`] makes one.
///
/// # Examples
///
/// ```
/// use derp_kv_core::{ErrorKind, KvStore};
/// use derp_kv_memory::{MemoryStore, OnFull};
///
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// let kv = MemoryStore::builder().max_bytes(1_000).on_full(OnFull::Reject).build();
/// let error = kv.set(b"k", &[0; 1_000], None).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Full);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct MemoryBuilder {
    pub(crate) max_bytes: Option<u64>,
    pub(crate) on_full: OnFull,
    pub(crate) clock: Option<ManualClock>,
    pub(crate) sweep_every: Option<Duration>,
}

impl MemoryBuilder {
    /// Bounds the memory, in bytes, counted with an estimate of what an entry costs beside its
    /// key and value.
    ///
    /// The bound is one for cached values and again one for pinned records: a store that evicts
    /// may hold up to twice `max_bytes`. One that rejects has pinned records only.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = Some(max_bytes);
        self
    }

    /// What to do at the bound; by default [`OnFull::EvictCached`].
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = on_full;
        self
    }

    /// Takes the time from `clock` instead of tokio.
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Gives the memory of expired records back every so often, also while nothing is written.
    ///
    /// Without it each write takes care of a few. The sweep is a task of the tokio runtime in
    /// which the first write happens, and ends with the last handle; where that runtime ends
    /// before, the next write starts it again.
    pub fn sweep_every(mut self, every: Duration) -> Self {
        self.sweep_every = Some(every);
        self
    }

    /// The store.
    #[must_use]
    pub fn build(self) -> MemoryStore {
        MemoryStore::from_options(self)
    }
}
