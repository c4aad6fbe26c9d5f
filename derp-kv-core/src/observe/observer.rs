use std::fmt;
use std::sync::Arc;

use crate::observe::event::Event;

/// Hears what the helpers, and the store's links, do.
///
/// The helpers find it through [`KvStore::observer`](crate::KvStore::observer). The backends take one in
/// their configuration; around any other store, [`Observe`](crate::Observe) brings one along.
///
/// It is called where the event happens, on the caller's path or on the store's own thread: it must return
/// at once, for nothing else goes on there until then. A panic of it is caught, and the call goes on.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
/// use derp_kv_core::{CallOutcome, Event, GuardedGet, KvStoreExt, Layered, Observe, Observer};
///
/// #[derive(Debug, Default)]
/// struct Hits(AtomicU64);
///
/// impl Observer for Hits {
///     fn event(&self, event: Event<'_>) {
///         if let Event::Answered { outcome: CallOutcome::Hit, .. } = event {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// # #[tokio::main] async fn main() -> anyhow::Result<()> {
/// # let store = derp_kv_memory::MemoryStore::new();
/// let hits = Arc::new(Hits::default());
/// let kv = Layered::new(store, Observe::with(hits.clone()));
/// const PAGES: GuardedGet = GuardedGet::new(Duration::from_secs(300));
/// for _ in 0..3 {
///     kv.guarded_get("product:42", &PAGES, || async { anyhow::Ok("a kettle") }).await?;
/// }
/// assert_eq!(hits.0.load(Ordering::Relaxed), 2);
/// # Ok(()) }
/// ```
pub trait Observer: fmt::Debug + Send + Sync {
    /// Is told of one event.
    fn event(&self, event: Event<'_>);
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn event(&self, event: Event<'_>) {
        (**self).event(event);
    }
}
