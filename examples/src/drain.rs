//! Waiting for the work that is under way when the service stops.

use std::sync::Arc;

use derp_kv_core::{KvStore, Layer, Layered};
use tokio::sync::mpsc;

use crate::database::QUERY_TIMEOUT;
use crate::products::Products;

/// Tells when no request, no work that its client has left and no refresh of a product is left.
#[derive(Debug)]
pub struct Drained {
    store: mpsc::Receiver<()>,
    products: Products,
}

impl Drained {
    /// Gives out `kv` as a handle for all who work with it, and learns when the last clone of it is gone.
    pub(crate) fn of(kv: Arc<dyn KvStore>, products: Products) -> (Arc<dyn KvStore>, Self) {
        let (in_use, store) = mpsc::channel(1);
        (Arc::new(Layered::new(kv, InUse(in_use))), Self { store, products })
    }

    /// Waits for the last one; the router must be gone.
    pub async fn wait(mut self) {
        while self.store.recv().await.is_some() {}
        // The handlers have ended, so no refresh begins any more, and the query of one has a time-out.
        self.products.drain(2 * QUERY_TIMEOUT).await;
    }
}

/// Goes with the store's handle. Nothing is ever sent: the channel is closed when it is dropped.
#[derive(Debug)]
struct InUse(#[expect(dead_code, reason = "it is there to be dropped")] mpsc::Sender<()>);

impl Layer for InUse {}
