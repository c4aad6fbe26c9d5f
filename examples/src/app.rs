//! The routes, and what the handlers share.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use derp_kv_core::{GuardedGet, KvStore, RateLimit};
use tokio::sync::mpsc;

use crate::database::{Database, QUERY_TIMEOUT, Stats};
use crate::error::ApiError;
use crate::products::{self, Products};
use crate::{orders, webhooks};

/// The longest request body, in bytes.
pub const MAX_BODY: usize = 16 * 1024;

/// What can differ between a test and production.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How products are cached.
    pub products: GuardedGet,
    /// How many orders a user may send in a window.
    pub order_limit: RateLimit,
}

impl Default for Settings {
    fn default() -> Self {
        Self { products: products::CACHED, order_limit: RateLimit::new(5, Duration::from_secs(60)) }
    }
}

/// What every handler gets.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) kv: Arc<dyn KvStore>,
    pub(crate) database: Arc<Database>,
    pub(crate) products: Products,
    pub(crate) settings: Arc<Settings>,
    work: mpsc::Sender<()>,
}

impl App {
    /// Runs work to its end even when the client goes away and its handler is dropped.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let running = self.work.clone();
        let task = tokio::spawn(async move {
            let _running = running;
            work.await
        });
        task.await.unwrap_or_else(|_panicked| Err(ApiError::internal()))
    }
}

/// Tells when no handler, no detached work and no refresh of a product is left.
#[derive(Debug)]
pub struct Drained {
    work: mpsc::Receiver<()>,
    products: Products,
}

impl Drained {
    /// Waits for the last one; the router must be gone.
    pub async fn wait(mut self) {
        while self.work.recv().await.is_some() {}
        // The handlers have ended, so no refresh begins any more, and the query of one has a time-out.
        self.products.drain(2 * QUERY_TIMEOUT).await;
    }
}

/// The service on a store and a database, and a way to wait for its unfinished work.
pub fn service(
    kv: Arc<dyn KvStore>,
    database: Arc<Database>,
    settings: Settings,
) -> (Router, Drained) {
    let (work, running) = mpsc::channel(1);
    let products = products::cache(kv.clone(), settings.products);
    let drained = Drained { work: running, products: products.clone() };
    let app = App { kv, database, products, settings: Arc::new(settings), work };
    let router = Router::new()
        .route("/products/{id}", get(products::show).put(products::change))
        .route("/products/{id}/cached", delete(products::forget))
        .route("/orders", post(orders::create))
        .route("/webhooks", post(webhooks::receive))
        .route("/stats", get(stats))
        .fallback(async || ApiError::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            let message = "this path does not take this method";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app);
    (router, drained)
}

async fn stats(State(app): State<App>) -> Json<Stats> {
    Json(app.database.stats())
}
