//! `scan`: a stream over the regions that copies the keys of a small part at a time.

use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use derp_kv_core::Result;
use futures_core::stream::BoxStream;
use futures_util::stream::{self, StreamExt};

use crate::coop;
use crate::keyspace::{Keyspace, SHARDS};
use crate::regions::is_live;

/// After so many cached keys, matching or not, those that were found are handed over.
const KEYS_PER_PAGE: usize = 256;

/// The stream owns its walk through the keyspace, which runs as far as the next page whenever
/// the stream has no key left. No lock is held in between.
pub(crate) fn scan(keyspace: Arc<Keyspace>, prefix: &[u8]) -> BoxStream<'static, Result<Bytes>> {
    let page = Page::default();
    let mut walk = Some(Box::pin(walk(keyspace, prefix.into(), page.clone())));
    let mut found = Vec::new().into_iter();
    let next = move |context: &mut std::task::Context<'_>| {
        loop {
            if let Some(key) = found.next() {
                return Poll::Ready(Some(Ok(key)));
            }
            let Some(running) = &mut walk else { return Poll::Ready(None) };
            let polled = running.as_mut().poll(context);
            found = page.take().into_iter();
            match polled {
                Poll::Ready(()) => walk = None,
                Poll::Pending if found.len() == 0 => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    };
    stream::poll_fn(next).boxed()
}

/// Goes through the cached keys first, then through the pinned ones: a key may be promoted from the
/// first region to the second, never back while it lives, so none is missed on its way. Last come
/// the keys that were renewed in the first region meanwhile.
async fn walk(keyspace: Arc<Keyspace>, prefix: Box<[u8]>, page: Page) {
    let evictable = keyspace.regions.evictable.as_ref();
    let renewed = evictable.map(|evictable| evictable.watch_renewals());
    if let Some(evictable) = evictable {
        let mut visited = 0;
        for (key, cached) in evictable.iter() {
            if key.starts_with(&prefix) && is_live(cached.deadline(), &keyspace.regions.now()) {
                page.push(key);
            }
            visited += 1;
            if visited % KEYS_PER_PAGE == 0 {
                page.hand_over(KEYS_PER_PAGE).await;
            }
        }
        page.hand_over(visited % KEYS_PER_PAGE).await;
    }
    for index in 0..SHARDS {
        let visited = {
            let shard = keyspace.shard(index).read();
            let now = keyspace.regions.now();
            for entry in shard.pinned() {
                if entry.key.starts_with(&prefix) && is_live(entry.deadline, &now) {
                    page.push(Bytes::copy_from_slice(&entry.key));
                }
            }
            shard.pinned().len()
        };
        if visited > 0 {
            page.hand_over(visited).await;
        }
    }
    if let Some(log) = renewed {
        let keys = take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner));
        keys.into_iter().filter(|key| key.starts_with(&prefix)).for_each(|key| page.push(key));
    }
    page.hand_over(0).await;
}

/// Keys on their way from the walk to the stream, which share it and run in turns.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<Bytes>>>);

impl Page {
    fn push(&self, key: Bytes) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(key);
    }

    fn take(&self) -> Vec<Bytes> {
        take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets the stream take the keys, if there are any, after other tasks had their turn for the
    /// keys visited.
    async fn hand_over(&self, visited: usize) {
        coop::keys(visited).await;
        let mut handed_over = self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        std::future::poll_fn(|_| {
            // The stream polls again when it has no key left: there is nothing to be woken by.
            match std::mem::replace(&mut handed_over, true) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;
    use crate::config::MemoryConfig;

    #[tokio::test]
    async fn a_scan_outlives_the_store_that_it_came_from() {
        let keyspace = Arc::new(Keyspace::new(&MemoryConfig::default().max_bytes(1 << 20)));
        keyspace.update(b"cached", |slot| slot.write_cached(Bytes::from("v"), None)).unwrap();
        keyspace.update(b"pinned", |slot| slot.write_pinned(b"v", None)).unwrap();
        let keys = tokio::spawn(scan(keyspace, b"").try_collect::<Vec<_>>());
        assert_eq!(keys.await.unwrap().unwrap(), [&b"cached"[..], b"pinned"]);
    }
}
