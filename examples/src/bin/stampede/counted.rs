//! A store that counts the calls that go through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use derp_kv_core::{KvStore, Layer, Layered, Operation, Result};
use futures_core::stream::BoxStream;

/// Any store, and the number of its calls.
pub(crate) type Counted = Layered<Arc<dyn KvStore>, Calls>;

/// Counts calls; waiting for a change is not counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<AtomicU64>);

impl Calls {
    /// The calls since it was last asked.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }

    fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Layer for Calls {
    async fn around<T: Send>(
        &self,
        _operation: Operation,
        _key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.count();
        call.await
    }

    fn around_scan(
        &self,
        _prefix: &[u8],
        keys: BoxStream<'static, Result<Bytes>>,
    ) -> BoxStream<'static, Result<Bytes>> {
        self.count();
        keys
    }
}
