use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use derp_kv_core::Ttl;
use tokio::time::Instant;

/// A clock that stands still until it is told otherwise.
///
/// It does for tests on a multi-thread runtime, where tokio's clock cannot be paused, what
/// `tokio::time::advance` does on a single thread. Clones are the same clock.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::KvStore;
/// use derp_kv_memory::{ManualClock, MemoryStore};
///
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// let clock = ManualClock::new();
/// let kv = MemoryStore::builder().clock(clock.clone()).build()?;
/// kv.set(b"k", b"v", Some(Duration::from_secs(60))).await?;
/// clock.advance(Duration::from_secs(60));
/// assert!(!kv.exists(b"k").await?);
/// # Ok(()) }
/// ```
///
/// # A lease does not follow it
///
/// A lock's record ends in the store when this clock passes its TTL. Its holder does not notice: a
/// lease measures its own time on tokio's clock, which stands still meanwhile. After an
/// [`advance`](Self::advance) past the TTL of a held lock, another caller can take the lock although
/// the first lease still says that it is held; the lease is found lost when it is renewed or
/// released next. A test in which time passes for locks and leases alike pauses tokio's clock
/// (`#[tokio::test(start_paused = true)]` and `tokio::time::advance`) and leaves the store on it.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    nanos: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock at its beginning.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward.
    ///
    /// What expires by that is absent at once. A held lease does not notice that its lock is
    /// ([as said above](Self#a-lease-does-not-follow-it)).
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        let step = |now: u64| Some(now.saturating_add(by));
        // The closure never refuses.
        let _ = self.nanos.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step);
    }
}

/// Clones are the same clock, and no two others are.
impl PartialEq for ManualClock {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.nanos, &other.nanos)
    }
}

impl Eq for ManualClock {}

/// The reading of tokio's clock at the moment when the store was made. It is not zero, for a paused
/// runtime's clock may stand at an earlier moment, and it leaves room above for the longest TTL.
const ORIGIN: u64 = 1 << 62;

/// Where deadlines come from, in nanoseconds.
#[derive(Debug)]
pub(crate) enum Clock {
    Tokio { origin: Instant },
    Manual(ManualClock),
}

impl Clock {
    pub(crate) fn tokio() -> Self {
        Self::Tokio { origin: Instant::now() }
    }

    fn now(&self) -> u64 {
        match self {
            Self::Tokio { origin } => {
                let now = Instant::now();
                match now.checked_duration_since(*origin) {
                    Some(after) => ORIGIN.saturating_add(nanos(after)),
                    None => ORIGIN.saturating_sub(nanos(origin.duration_since(now))),
                }
            }
            Self::Manual(clock) => clock.nanos.load(Ordering::SeqCst),
        }
    }
}

/// The time at which an operation takes place. The clock is read once at most, and only where the
/// time matters: most keys have no deadline. The lock under which it is read must be held, for an
/// older time would be applied to a newer value.
#[derive(Debug)]
pub(crate) struct Now<'a> {
    clock: &'a Clock,
    nanos: Cell<Option<u64>>,
}

impl<'a> Now<'a> {
    pub(crate) fn by(clock: &'a Clock) -> Self {
        Self { clock, nanos: Cell::new(None) }
    }

    pub(crate) fn nanos(&self) -> u64 {
        self.nanos.get().unwrap_or_else(|| {
            let nanos = self.clock.now();
            self.nanos.set(Some(nanos));
            nanos
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The moment at which an entry becomes absent. A niche keeps "never" free of charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(std::num::NonZeroU64);

impl Deadline {
    pub(crate) fn after(now: &Now<'_>, ttl: Ttl) -> Self {
        let nanos = now.nanos().saturating_add(ttl.as_millis().saturating_mul(1_000_000));
        Self(std::num::NonZeroU64::new(nanos).unwrap_or(std::num::NonZeroU64::MIN))
    }

    pub(crate) fn nanos(self) -> u64 {
        self.0.get()
    }

    pub(crate) fn passed(self, now: &Now<'_>) -> bool {
        now.nanos() >= self.0.get()
    }

    /// Exact: a step tells by it how long ago a record was written, and what each write rounds adds up.
    /// Never zero before the deadline, never above the TTL.
    pub(crate) fn remaining(self, now: &Now<'_>) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(now.nanos()))
    }
}
