//! Attempts at work that must not run again unseen.
//!
//! A lease ends with its holder, and nothing then says that there was one. So an attempt leaves a marker
//! at `{key}:attempt`, which outlives it: `{number}:{token}` while nobody knows what it came to, with its
//! lease's token, and `{number}` once its work has said that it failed. The record of work that is done
//! takes its place.
//!
//! Whoever ends an attempt writes the record before it removes the marker. Whoever begins one writes the
//! marker before it looks for the record. So one of the two sees the other, whatever clocks and leases
//! say: a holder that was cut off and comes back is not met by a successor that runs the work again. And
//! whoever finds the marker of another looks for the record before it takes that for abandoned.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::coordinate::claim::too_slow;
use crate::coordinate::keys::{ATTEMPT_SUFFIX, RETRY_DELAY, lock_key};
use crate::coordinate::lease::{Acquired, Lease, Terms};
use crate::coordinate::renewal::Hold;
use crate::coordinate::run_to_end::{RunToEnd, run_detached};
use crate::coordinate::write_once::{WriteOnce, Written};
use crate::error::{Error, ErrorKind, Result};
use crate::once::options::OnAbandoned;
use crate::store::kv_store::KvStore;
use crate::store::ttl::MAX_TTL;

/// How often a marker is written anew that somebody else changes. Its writer holds the lock, so only one
/// that came back from the dead, or was told to forget it, does.
const TRIES: u32 = 10;

/// The longest pause between two tries to end a marker.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One attempt at work that is done once, for the closure that asks for it:
/// [`idempotent_execute_with`](crate::KvStoreExt::idempotent_execute_with),
/// [`process_once_with`](crate::KvStoreExt::process_once_with).
///
/// It watches the lease under which the work runs, and does not own it. So it can make a side effect
/// conditional: pass [`token`](Self::token) along to the resource and let it compare, or stop where the
/// lease is [`lost`](Self::lost), for another may be at the work by then.
///
/// An `Err` of the closure says that nothing was done, and that the work may be tried again. A closure
/// that does not know, because the other side did not answer, says so by [`abandon`](Self::abandon).
///
/// # Examples
///
/// ```
/// use derp_kv_core::{Attempt, Error, ErrorKind, Idempotency, KvStoreExt};
/// # async fn charge(_: u32) -> Result<u64, Error> { Ok(1) }
/// # #[tokio::main] async fn main() -> Result<(), Error> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let pay = |attempt: Attempt| async move {
///     tokio::select! {
///         charged = charge(attempt.number()) => charged,
///         () = attempt.lost() => {
///             attempt.abandon(); // whether the card was charged is not known
///             Err(Error::new(ErrorKind::Abandoned, "another may be at it"))
///         }
///     }
/// };
/// let outcome = kv.idempotent_execute_with("a-key", &Idempotency::default(), pay).await?;
/// assert_eq!(outcome.body, 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Attempt {
    number: u32,
    hold: Arc<Hold>,
    is_abandoned: Option<Arc<AtomicBool>>,
}

impl Attempt {
    /// One that nobody counts, for a closure that does not ask.
    pub(crate) fn unmarked(hold: Arc<Hold>) -> Self {
        Self { number: 1, hold, is_abandoned: None }
    }

    /// 1 for the first, and one more for each earlier attempt that failed or was abandoned and was
    /// counted, as far as the store remembers: for as long as a record lives.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The random token of the lease, different for every attempt. It says who, and not who came later:
    /// it is not ordered.
    #[must_use]
    pub fn token(&self) -> &str {
        self.hold.token()
    }

    /// Whether the lease is lost: another may be at the work. It is also lost once the attempt has
    /// ended.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.hold.is_lost()
    }

    /// Waits until the lease is lost.
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing.
    pub async fn lost(&self) {
        self.hold.lost().await;
    }

    /// Says that nobody knows what this attempt has done. Where it ends in an `Err`, or in a reply that
    /// is not kept, it counts as abandoned and not as failed. An answer that is kept counts all the same.
    pub fn abandon(&self) {
        if let Some(is_abandoned) = &self.is_abandoned {
            is_abandoned.store(true, Ordering::Release);
        }
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("number", &self.number)
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// The key of the marker of `key`.
fn attempt_key(key: &[u8]) -> Bytes {
    [key, ATTEMPT_SUFFIX].concat().into()
}

/// How an attempt begins.
pub(crate) struct Start<'a> {
    pub(crate) key: &'a Bytes,
    /// How long its record lives, and its marker.
    pub(crate) ttl: Duration,
    /// Whether it leaves a marker. The caller has not looked for the record since it took the lock.
    pub(crate) is_marked: bool,
    pub(crate) on_abandoned: OnAbandoned,
    /// After how many attempts there is to be none.
    pub(crate) at_most: Option<u32>,
}

/// What came of beginning an attempt.
pub(crate) enum Begun {
    /// The work is to be done.
    Attempt(Ongoing),
    /// There have been so many attempts already, the last of which this is.
    Exhausted(Ongoing),
    /// The record is there.
    Found(Bytes),
}

impl Start<'_> {
    /// Begins the next attempt under `lease`, which is let go where there is to be none.
    ///
    /// # Errors
    ///
    /// [`Abandoned`](ErrorKind::Abandoned) where an earlier attempt was, and is to be rejected;
    /// [`Corrupt`](ErrorKind::Corrupt) for a marker that cannot be decoded;
    /// [`Timeout`](ErrorKind::Timeout) where the lease was lost meanwhile; those of the store.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it takes back what it has written, and then lets go of the lease.
    pub(crate) async fn begin(self, lease: Lease) -> Result<Begun> {
        if !self.is_marked {
            return Ok(Begun::Attempt(Ongoing { lease, marker: None }));
        }
        let Self { on_abandoned, at_most, .. } = self;
        let (record, hold) = (self.key.clone(), lease.hold());
        let marker = Marker {
            key: attempt_key(&record),
            // The lock of a holder that died must not outlive its marker.
            ttl: self.ttl.saturating_add(hold.ttl).min(MAX_TTL),
            hold,
            value: Bytes::new(),
            before: None,
            number: 1,
            is_abandoned: Arc::default(),
        };
        let mut beginning = Beginning { lease: Some(lease), marker, is_exhausted: false };
        let looked = RunToEnd::new(async move {
            match beginning.mark_and_look(&record, on_abandoned, at_most).await {
                Ok(None) => Ok(Looked::Ready(beginning)),
                Ok(Some(record)) => {
                    beginning.let_go().await;
                    Ok(Looked::Found(record))
                }
                Err(error) => {
                    beginning.let_go().await;
                    Err(error)
                }
            }
        });
        match looked.await? {
            Looked::Found(record) => Ok(Begun::Found(record)),
            Looked::Ready(beginning) => beginning.start(),
        }
    }
}

enum Looked {
    Ready(Beginning),
    Found(Bytes),
}

/// The marker of an attempt whose work has not begun, and the lease. Dropped, it takes the marker back,
/// and only then lets go of the lease: the next holder must not find an attempt that never was.
struct Beginning {
    lease: Option<Lease>,
    marker: Marker,
    is_exhausted: bool,
}

impl Beginning {
    /// Marks the attempt, and then looks for the record, which somebody may have written who had lost
    /// the lease.
    async fn mark_and_look(
        &mut self,
        record: &[u8],
        on_abandoned: OnAbandoned,
        at_most: Option<u32>,
    ) -> Result<Option<Bytes>> {
        let written = self.marker.write(on_abandoned, at_most).await;
        let found = match &written {
            // The marker of an attempt that is done is removed a moment after its record was written.
            Err(error) if error.kind() != ErrorKind::Abandoned => None,
            _ => self.marker.hold.store.get(record).await?,
        };
        if found.is_none() {
            self.is_exhausted = written?;
        }
        Ok(found)
    }

    /// From here on the marker says that an attempt was made.
    fn start(mut self) -> Result<Begun> {
        let marker = self.marker.clone();
        let lease = self.lease.take_if(|lease| !lease.is_lost()).ok_or_else(too_slow)?;
        let ongoing = Ongoing { lease, marker: Some(marker) };
        Ok(if self.is_exhausted { Begun::Exhausted(ongoing) } else { Begun::Attempt(ongoing) })
    }

    async fn let_go(mut self) {
        if let Some(lease) = self.lease.take() {
            self.marker.clone().undo(lease).await;
        }
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            let (marker, runtime) = (self.marker.clone(), self.marker.hold.runtime.clone());
            run_detached(&runtime, marker.undo(lease));
        }
    }
}

/// An attempt that is under way. Dropped, it was abandoned: its lease is freed, and its marker stays.
pub(crate) struct Ongoing {
    lease: Lease,
    marker: Option<Marker>,
}

impl Ongoing {
    /// One that leaves no marker.
    pub(crate) fn unmarked(lease: Lease) -> Self {
        Self { lease, marker: None }
    }

    pub(crate) fn number(&self) -> u32 {
        self.marker.as_ref().map_or(1, |marker| marker.number)
    }

    /// What its closure is told.
    pub(crate) fn attempt(&self) -> Attempt {
        let is_abandoned = self.marker.as_ref().map(|marker| marker.is_abandoned.clone());
        Attempt { number: self.number(), hold: self.lease.hold(), is_abandoned }
    }

    /// The work is done: writes its record, and then removes the marker. Where no record can be written,
    /// the marker alone says that the work was begun.
    pub(crate) async fn done(self, write: WriteOnce) -> Result<Written> {
        let Self { lease, marker } = self;
        let Some(marker) = marker else {
            return write.write(lease).await;
        };
        RunToEnd::new(async move {
            let written = write.write_here(lease).await?;
            marker.end(None, None).await;
            Ok(written)
        })
        .await
    }

    /// The work said that it failed: closes the marker, unless the work does not know either, and then
    /// frees the lease.
    pub(crate) async fn failed(self) {
        let Self { lease, marker } = self;
        let closed = marker.filter(|marker| !marker.is_abandoned.load(Ordering::Acquire));
        match closed {
            // Where the release fails, it goes on in the background.
            None => drop(lease.release().await),
            Some(marker) => {
                let closed = Bytes::from(marker.number.to_string());
                RunToEnd::new(marker.end(Some(closed), Some(lease))).await;
            }
        }
    }
}

/// The marker of an attempt. Left alone, it says that the attempt was abandoned.
#[derive(Clone)]
struct Marker {
    hold: Arc<Hold>,
    key: Bytes,
    /// Empty where nothing was written.
    value: Bytes,
    /// What was there before it.
    before: Option<Bytes>,
    number: u32,
    ttl: Duration,
    /// Whether the work has said that it does not know what it did.
    is_abandoned: Arc<AtomicBool>,
}

impl Marker {
    /// Writes the marker of the next attempt, and tells whether there is to be none: then it is that of
    /// the last one. The caller holds the lock.
    async fn write(&mut self, on_abandoned: OnAbandoned, at_most: Option<u32>) -> Result<bool> {
        for _ in 0..TRIES {
            self.value = format!("{}:{}", self.number, self.hold.token()).into();
            if self.try_write().await? {
                return Ok(false);
            }
            let seen = self.hold.store.get(&self.key).await?;
            if seen.as_ref() == Some(&self.value) {
                // A write whose answer was lost came late.
                return Ok(false);
            }
            self.value.clear();
            let (number, is_open) = match seen.as_deref() {
                None => (0, false),
                Some(seen) => parse(seen).ok_or_else(unreadable)?,
            };
            if is_open && on_abandoned == OnAbandoned::Reject {
                return Err(abandoned(number));
            }
            if at_most.is_some_and(|at_most| number >= at_most) {
                (self.number, self.value) = (number, seen.clone().unwrap_or_default());
                self.before = seen;
                return Ok(true);
            }
            (self.number, self.before) = (number.saturating_add(1), seen);
        }
        let message = "others change the marker of this key's attempts";
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    async fn try_write(&self) -> Result<bool> {
        let store = &self.hold.store;
        let written = match &self.before {
            None => store.set_nx(&self.key, &self.value, Some(self.ttl)).await,
            Some(before) => {
                store.compare_and_set(&self.key, before, &self.value, Some(self.ttl)).await
            }
        };
        let error = match written {
            Err(error) if error.may_have_applied() => error,
            known => return known,
        };
        // Nobody else writes this token, so reading it back tells whether the write was applied.
        let found = store.get(&self.key).await.map_err(|_| error)?;
        Ok(found.is_some_and(|found| found == self.value))
    }

    /// The work has not begun: puts back what was there, and then frees the lease.
    async fn undo(self, lease: Lease) {
        if self.value.is_empty() {
            // Where the release fails, it goes on in the background.
            drop(lease.release().await);
        } else {
            let before = self.before.clone();
            self.end(before, Some(lease)).await;
        }
    }

    /// Puts `instead` in the place of the marker, unless that is somebody else's by now, and then frees
    /// the lease. Where the store fails, this goes on in the background, for as long as the marker would
    /// live: whoever gets the lock must not take the attempt for one that was abandoned.
    async fn end(self, instead: Option<Bytes>, lease: Option<Lease>) {
        if self.try_end(instead.as_ref()).await.is_ok() {
            if let Some(lease) = lease {
                drop(lease.release().await);
            }
            return;
        }
        let runtime = self.hold.runtime.clone();
        run_detached(&runtime, async move {
            let began = Instant::now();
            let mut pause = RETRY_DELAY;
            while began.elapsed() < self.ttl {
                sleep(pause).await;
                if self.try_end(instead.as_ref()).await.is_ok() {
                    break;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            drop(lease);
        });
    }

    async fn try_end(&self, instead: Option<&Bytes>) -> Result<bool> {
        let Self { hold, key, value, ttl, .. } = self;
        match instead {
            None => hold.store.compare_and_delete(key, value).await,
            Some(instead) => hold.store.compare_and_set(key, value, instead, Some(*ttl)).await,
        }
    }
}

/// Takes the lease of `key` where nobody is at the work.
///
/// # Errors
///
/// [`InProgress`](ErrorKind::InProgress) where somebody is; [`Timeout`](ErrorKind::Timeout) where the store
/// answers later than the lock lasts; those of the store.
pub(crate) async fn lease<S>(store: &S, key: &[u8], lock_ttl: Duration) -> Result<Lease>
where
    S: KvStore + Clone,
{
    match Lease::acquire(store, lock_key(key), None, Terms::unlimited(lock_ttl)).await? {
        Acquired::Lease(lease) => Ok(lease),
        Acquired::Held => {
            let error = Error::new(ErrorKind::InProgress, "an attempt is under way");
            Err(error.with_retry_after(lock_ttl))
        }
        Acquired::Late => Err(too_slow()),
    }
}

/// Forgets the attempts at `key`, under `lease`, and tells whether there were any.
///
/// # Errors
///
/// [`Timeout`](ErrorKind::Timeout) where the lease was lost meanwhile; those of the store.
pub(crate) async fn forget(key: &[u8], lease: &Lease) -> Result<bool> {
    let (hold, key) = (lease.hold(), attempt_key(key));
    let Some(seen) = hold.store.get(&key).await? else { return Ok(false) };
    if lease.is_lost() {
        return Err(too_slow());
    }
    // A successor of this lease may have begun an attempt since: that one stays.
    hold.store.compare_and_delete(&key, &seen).await
}

/// The number in a marker, and whether nobody knows what that attempt came to.
fn parse(marker: &[u8]) -> Option<(u32, bool)> {
    let text = std::str::from_utf8(marker).ok()?;
    match text.split_once(':') {
        Some((number, _token)) => Some((number.parse().ok()?, true)),
        None => Some((text.parse().ok()?, false)),
    }
}

fn abandoned(number: u32) -> Error {
    let message = format!(
        "attempt {number} was abandoned, and nobody knows what it has done; the work is not done \
         again before its attempts are forgotten"
    );
    Error::new(ErrorKind::Abandoned, message).with_transient(false).with_may_have_applied(true)
}

fn unreadable() -> Error {
    let message = "the marker of this key's attempts cannot be decoded; it is left as it is until \
                   they are forgotten";
    Error::new(ErrorKind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_says_its_number_and_whether_it_is_open() {
        assert_eq!(parse(b"1:00ff"), Some((1, true)));
        assert_eq!(parse(b"41"), Some((41, false)));
        for hostile in ["", ":", "x", "1x", "-1:00", "4294967296", " 1"] {
            assert_eq!(parse(hostile.as_bytes()), None, "{hostile}");
        }
        assert_eq!(parse(b"\xff"), None);
    }
}
