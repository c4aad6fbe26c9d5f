//! What the page sees of the store.

use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{ErrorKind, Event, KvStore, Layer, Observer, Operation, Result};
use tokio::time::timeout;

use super::PRODUCTS;
use super::feed::Feed;
use crate::products::{STALE, key};

/// How long the page waits for what it wants to know of the store.
const PATIENCE: Duration = Duration::from_millis(250);

/// Asks the store, beside all others, what is left of the products in it.
#[derive(Debug)]
pub(crate) struct Looker {
    kv: Arc<dyn KvStore>,
    feed: Arc<Feed>,
    keys: [(u32, String); PRODUCTS.len()],
}

impl Looker {
    pub(crate) fn new(kv: Arc<dyn KvStore>, feed: Arc<Feed>) -> Self {
        Self { kv, feed, keys: PRODUCTS.map(|id| (id, key(id))) }
    }

    /// Looks at one product. Where the store does not say, what was known of it stays.
    pub(crate) async fn look(&self, product: u32) {
        let Some((id, key)) = self.keys.iter().find(|(id, _)| *id == product) else { return };
        if let Ok(Ok(left)) = timeout(PATIENCE, self.kv.ttl(key.as_bytes())).await {
            self.feed.product(*id, left, STALE);
        }
    }

    fn product_of(&self, key: &[u8]) -> Option<u32> {
        self.keys.iter().find(|(_, own)| own.as_bytes() == key).map(|(id, _)| *id)
    }
}

/// A layer that changes no call. After each write of a product it asks what is left of its key, before the
/// writer goes on: so the page hears of the write before the answer that comes from it.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) looker: Arc<Looker>,
    pub(crate) feed: Arc<Feed>,
}

impl Layer for Watch {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let result = call.await;
        self.feed.command(match &result {
            Ok(_) => Some(true),
            Err(error) => match error.kind() {
                ErrorKind::Unavailable | ErrorKind::Timeout => Some(false),
                _ => None,
            },
        });
        if result.is_ok()
            && operation.writes()
            && let Some(product) = key.and_then(|key| self.looker.product_of(key))
        {
            self.looker.look(product).await;
        }
        result
    }
}

/// Tells the observer that the store had before, and the page.
#[derive(Debug)]
pub(crate) struct Both {
    pub(crate) before: Arc<dyn KvStore>,
    pub(crate) feed: Arc<Feed>,
}

impl Observer for Both {
    fn event(&self, event: Event<'_>) {
        if let Some(before) = self.before.observer() {
            before.event(event);
        }
        self.feed.event(event);
    }
}

/// Passes the events of links on.
#[derive(Debug)]
pub(crate) struct Links(pub(crate) Arc<Feed>);

impl Observer for Links {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::Link { .. } | Event::TopologyChanged { .. }) {
            self.0.event(event);
        }
    }
}
