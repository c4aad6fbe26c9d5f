//! A layer that counts the calls of the store, and hears of values that were not kept.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use derp_kv_core::{Event, Layer, Observer, Operation, Result};

tokio::task_local! {
    /// The calls that one caller waited for. What runs in the background is not among them.
    static OWN: Cell<u64>;
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: AtomicU64,
    not_kept: AtomicU64,
}

impl Calls {
    /// All calls since it was last asked, also those in the background.
    pub(crate) fn take(&self) -> u64 {
        self.0.all.swap(0, Ordering::Relaxed)
    }

    /// How many values were not kept since it was last asked.
    pub(crate) fn take_not_kept(&self) -> u64 {
        self.0.not_kept.swap(0, Ordering::Relaxed)
    }
}

/// Does the work of one caller, and tells how many calls of the store it waited for.
pub(crate) async fn counted<T>(work: impl Future<Output = T>) -> (T, u64) {
    let counted = async { (work.await, OWN.with(Cell::get)) };
    OWN.scope(Cell::new(0), counted).await
}

impl Layer for Calls {
    async fn around<T: Send>(
        &self,
        _operation: Operation,
        _key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.0.all.fetch_add(1, Ordering::Relaxed);
        // Outside of a caller nobody counts.
        let _ = OWN.try_with(|own| own.set(own.get() + 1));
        call.await
    }

    fn observer<'a>(&'a self, _inner: Option<&'a dyn Observer>) -> Option<&'a dyn Observer> {
        Some(&*self.0)
    }
}

impl Observer for Counts {
    fn event(&self, event: Event) {
        if let Event::NotKept { .. } = event {
            self.not_kept.fetch_add(1, Ordering::Relaxed);
        }
    }
}
