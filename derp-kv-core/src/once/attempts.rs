//! Attempts at work that must not run again unseen.
//!
//! A lease ends with its holder, and nothing then says that there was one. So an attempt leaves a marker
//! at `{key}:attempt`, which outlives it: `{number}:{nonce}` while nobody knows what it came to, and
//! `{number}` once its work has said that it failed. The record of work that is done takes its place.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use crate::coordinate::claim::too_slow;
use crate::coordinate::keys::{ATTEMPT_SUFFIX, RETRY_DELAY};
use crate::coordinate::renewal::Hold;
use crate::coordinate::run_to_end::{RunToEnd, run_detached};
use crate::coordinate::token::token;
use crate::error::{Error, ErrorKind, Result};
use crate::once::options::OnAbandoned;

/// How often a marker is written anew that somebody else changes. Its writer holds the lock, so only one
/// that came back from the dead, or was told to forget it, does.
const TRIES: u32 = 10;

/// One attempt at work that is done once, for the closure that asks for it:
/// [`idempotent_execute_with`](crate::KvStoreExt::idempotent_execute_with),
/// [`process_once_with`](crate::KvStoreExt::process_once_with).
///
/// It watches the lease under which the work runs, and does not own it. So it can make a side effect
/// conditional: pass [`token`](Self::token) along to the resource and let it compare, or stop where the
/// lease is [`lost`](Self::lost), for another may be at the work by then.
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
///         () = attempt.lost() => Err(Error::new(ErrorKind::Abandoned, "another may be at it")),
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
}

impl Attempt {
    /// 1 for the first, and one more for each earlier attempt that failed or was abandoned, as far as
    /// the store remembers: for as long as a record lives.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The random token of the lease, different for every attempt that holds one of its own. It says
    /// who, and not who came later: it is not ordered.
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
pub(crate) fn attempt_key(key: &[u8]) -> Bytes {
    [key, ATTEMPT_SUFFIX].concat().into()
}

/// The marker of an attempt that has begun. Left alone, it says that the attempt was abandoned.
pub(crate) struct Marker {
    hold: Arc<Hold>,
    key: Bytes,
    value: Bytes,
    before: Option<Bytes>,
    number: u32,
    ttl: Duration,
}

impl Marker {
    /// Writes the marker of the next attempt at `key`. The caller holds the lock.
    async fn write(hold: Arc<Hold>, key: &[u8], ttl: Duration, on: OnAbandoned) -> Result<Self> {
        let nonce = token()?;
        let mut marker =
            Self { hold, key: attempt_key(key), value: Bytes::new(), before: None, number: 1, ttl };
        for _ in 0..TRIES {
            marker.value = format!("{}:{nonce}", marker.number).into();
            if marker.try_write().await? {
                return Ok(marker);
            }
            let before = marker.hold.store.get(&marker.key).await?;
            let (number, is_open) = match before.as_deref() {
                None => (0, false),
                Some(before) => parse(before).ok_or_else(unreadable)?,
            };
            if is_open && on == OnAbandoned::Reject {
                return Err(abandoned());
            }
            (marker.number, marker.before) = (number.saturating_add(1), before);
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
        // Nobody else writes this nonce, so reading it back tells whether the write was applied.
        match store.get(&self.key).await {
            Ok(found) => Ok(found.is_some_and(|found| found == self.value)),
            Err(_) => {
                // The work has not begun, and must not seem to be abandoned.
                self.end_in_background(self.before.clone());
                Err(error)
            }
        }
    }

    /// The record says what the attempt came to.
    pub(crate) async fn remove(self) {
        self.end(None).await;
    }

    /// The work said that it failed.
    pub(crate) async fn close(self) {
        let closed = self.number.to_string();
        self.end(Some(closed.into())).await;
    }

    /// The work has not begun.
    async fn undo(mut self) {
        let before = self.before.take();
        self.end(before).await;
    }

    /// Puts `instead` in the place of the marker, unless that is somebody else's by now. Where the store
    /// fails, it is tried again in the background.
    async fn end(self, instead: Option<Bytes>) {
        if try_end(&self.hold, &self.key, &self.value, instead.as_ref(), self.ttl).await.is_err() {
            self.end_in_background(instead);
        }
    }

    /// For as long as a lock lasts: whoever comes later finds an attempt that was abandoned.
    fn end_in_background(&self, instead: Option<Bytes>) {
        let (hold, key, value) = (self.hold.clone(), self.key.clone(), self.value.clone());
        let (ttl, give_up) = (self.ttl, self.hold.now() + self.hold.ttl);
        run_detached(&self.hold.runtime, async move {
            while hold.now() < give_up {
                sleep(RETRY_DELAY).await;
                if try_end(&hold, &key, &value, instead.as_ref(), ttl).await.is_ok() {
                    break;
                }
            }
        });
    }
}

async fn try_end(
    hold: &Hold,
    key: &[u8],
    value: &[u8],
    instead: Option<&Bytes>,
    ttl: Duration,
) -> Result<bool> {
    match instead {
        None => hold.store.compare_and_delete(key, value).await,
        Some(instead) => hold.store.compare_and_set(key, value, instead, Some(ttl)).await,
    }
}

/// An attempt whose work has not begun, and what its caller holds meanwhile. Dropped, it leaves no marker,
/// and only then lets go of what is held: the next holder must not find an attempt that never was.
struct Begun<L: Send + 'static>(Option<(L, Marker)>);

impl<L: Send + 'static> Drop for Begun<L> {
    fn drop(&mut self) {
        if let Some((held, marker)) = self.0.take() {
            let runtime = marker.hold.runtime.clone();
            run_detached(&runtime, async move {
                marker.undo().await;
                drop(held);
            });
        }
    }
}

/// How an attempt begins.
pub(crate) struct Start<'a> {
    pub(crate) key: &'a Bytes,
    /// How long its marker lives.
    pub(crate) ttl: Duration,
    /// Whether it leaves a marker.
    pub(crate) is_counted: bool,
    pub(crate) on_abandoned: OnAbandoned,
}

impl Start<'_> {
    /// Begins the next attempt under the lease `hold`; `held` is what the caller holds for it, and gets
    /// back.
    ///
    /// # Errors
    ///
    /// [`Abandoned`](ErrorKind::Abandoned) where an earlier attempt was, and is to be rejected;
    /// [`Corrupt`](ErrorKind::Corrupt) for a marker that cannot be decoded;
    /// [`Timeout`](ErrorKind::Timeout) where the lease was lost meanwhile, and what was held is let go; those
    /// of the store.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it takes back what it has written, and then drops what is held.
    pub(crate) async fn begin<L: Send + 'static>(
        self,
        held: L,
        hold: Arc<Hold>,
    ) -> Result<(L, Attempt, Option<Marker>), (Option<L>, Error)> {
        if !self.is_counted {
            return Ok((held, Attempt { number: 1, hold }, None));
        }
        let Self { ttl, on_abandoned, .. } = self;
        let (key, lease) = (self.key.clone(), hold.clone());
        let mut begun = RunToEnd::new(async move {
            match Marker::write(lease, &key, ttl, on_abandoned).await {
                Ok(marker) => Ok(Begun(Some((held, marker)))),
                Err(error) => Err((Some(held), error)),
            }
        })
        .await?;
        match begun.0.take() {
            Some((held, marker)) if !hold.is_lost() => {
                Ok((held, Attempt { number: marker.number, hold }, Some(marker)))
            }
            late => {
                drop(Begun(late));
                Err((None, too_slow()))
            }
        }
    }
}

/// The number in a marker, and whether nobody knows what that attempt came to.
fn parse(marker: &[u8]) -> Option<(u32, bool)> {
    let text = std::str::from_utf8(marker).ok()?;
    match text.split_once(':') {
        Some((number, _nonce)) => Some((number.parse().ok()?, true)),
        None => Some((text.parse().ok()?, false)),
    }
}

fn abandoned() -> Error {
    let message = "an earlier attempt was abandoned, and nobody knows what it has done; the work is \
                   not done again before `idempotent_forget`";
    Error::new(ErrorKind::Abandoned, message).with_transient(false)
}

fn unreadable() -> Error {
    let message = "the marker of this key's attempts cannot be decoded; it is left as it is";
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
