//! The routes, and what the handlers share.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::map_response;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use derp_kv_core::{GuardedGet, KvStore, RateLimit};
use tracing::Instrument;

use crate::database::{Database, Stats};
use crate::drain::Drained;
use crate::error::{self, ApiError};
use crate::health::{self, Health};
use crate::metrics::Metrics;
use crate::page::Page;
use crate::products::{self, Products};
use crate::stopping::Stopping;
use crate::webhooks::senders::Senders;
use crate::{access, orders, webhooks};

/// The longest request body, in bytes.
pub const MAX_BODY: usize = 16 * 1024;

/// The longest webhook, in bytes. Those of Stripe, Shopify and Standard Webhooks have some kilobytes, with
/// a large invoice in them some hundred; GitHub may send 25 MB, and does so for pushes of thousands of
/// commits only.
pub const MAX_WEBHOOK: usize = 1024 * 1024;

/// What can differ between a test and production.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How products are cached.
    pub products: GuardedGet,
    /// How many orders a user may send in a window.
    pub order_limit: RateLimit,
    /// Through how many proxies of its own the service is called, each of which appends to
    /// `X-Forwarded-For`. Where there is one, its `X-Request-Id` is taken.
    pub trusted_proxies: usize,
    /// Who may send webhooks.
    pub senders: Senders,
    /// What the store that the service is given counts in, and what `/metrics` shows.
    pub metrics: Metrics,
    /// Whether the service is about to stop.
    pub stopping: Stopping,
    /// The page at `/`, where there is one. It shows products as old as they are under the
    /// default of [`products`](Self::products).
    pub page: Option<Page>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            products: products::CACHED,
            order_limit: RateLimit::new(5, Duration::from_secs(60)),
            trusted_proxies: 0,
            senders: Senders::default(),
            metrics: Metrics::new(),
            stopping: Stopping::new(),
            page: None,
        }
    }
}

/// What every handler gets.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) kv: Arc<dyn KvStore>,
    pub(crate) database: Arc<Database>,
    pub(crate) products: Products,
    pub(crate) health: Health,
    pub(crate) settings: Arc<Settings>,
}

impl App {
    /// Runs work to its end even when the client goes away and its handler is dropped.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let app = self.clone();
        let work = async move {
            let _in_use = app;
            work.await
        };
        // What it does and logs belongs to the request.
        let task = tokio::spawn(work.in_current_span());
        task.await.unwrap_or_else(|_panicked| Err(ApiError::internal()))
    }
}

/// The service on a store and a database, and a way to wait for its unfinished work.
pub fn service(
    kv: Arc<dyn KvStore>,
    database: Arc<Database>,
    settings: Settings,
) -> (Router, Drained) {
    let page = settings.page.clone();
    let kv = page.as_ref().map_or(kv.clone(), |page| page.watch(kv, &database));
    let products = products::cache(kv.clone(), settings.products);
    let (kv, drained) = Drained::of(kv, products.clone());
    let (stopping, trusted_proxies) = (settings.stopping.clone(), settings.trusted_proxies);
    let health = Health::new(kv.clone(), stopping.clone());
    let app = App { kv, database, products, health, settings: Arc::new(settings) };
    let webhook = post(webhooks::receive).layer(DefaultBodyLimit::max(MAX_WEBHOOK));
    let router = Router::new()
        .route("/products/{id}", get(products::show).put(products::change))
        .route("/products/{id}/cached", delete(products::forget))
        .route("/orders", orders::route(&app))
        .route("/webhooks/{sender}", webhook)
        .route("/stats", get(stats))
        .route("/metrics", get(metrics))
        .route("/health", get(health::ready))
        .route("/health/live", get(health::live))
        .merge(page.map(|page| page.routes()).unwrap_or_default())
        .fallback(async || ApiError::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(map_response(error::log))
        .with_state(app);
    (access::log(router, stopping, trusted_proxies), drained)
}

async fn stats(State(app): State<App>) -> Json<Stats> {
    Json(app.database.stats())
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    // The version of the text, which Prometheus wants to know.
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.settings.metrics.text())
}
