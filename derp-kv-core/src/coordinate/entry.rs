//! The value of a key as a helper reads it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::error::Result;
use crate::store::kv_store::KvStore;

/// A value that was found, and when it goes away.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) value: Bytes,
    /// No later than the store says; none where it stays, or where nobody asked.
    pub(crate) gone_at: Option<Instant>,
}

impl Entry {
    pub(crate) fn new(value: Bytes, gone_at: Option<Instant>) -> Self {
        Self { value, gone_at }
    }

    /// How long the value stays; `None` if it never expires or its expiry was not read.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.gone_at.map(|gone_at| gone_at.saturating_duration_since(Instant::now()))
    }
}

/// How the value of a key is read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading<'a> {
    /// Whether its expiry is read with it, which costs the store more.
    pub(crate) timed: bool,
    /// A value that counts as none: it cannot be decoded.
    pub(crate) ignored: Option<&'a [u8]>,
}

impl Reading<'_> {
    pub(crate) async fn read<S: KvStore>(self, store: &S, key: &[u8]) -> Result<Option<Entry>> {
        let found = if self.timed {
            // The time that the answer took counts as gone.
            let asked = Instant::now();
            let found = store.get_with_ttl(key).await?;
            found.map(|(value, expiry)| {
                let gone_at = expiry.remaining().and_then(|left| asked.checked_add(left));
                Entry { value, gone_at }
            })
        } else {
            store.get(key).await?.map(|value| Entry::new(value, None))
        };
        Ok(found.filter(|entry| self.ignored.is_none_or(|ignored| entry.value != ignored)))
    }
}
