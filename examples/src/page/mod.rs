//! The page at `/`, which shows what the library does while it does it.
//!
//! It is one file, `index.html`, without anything from elsewhere. What it draws
//! comes from two places: the answers that its own requests get, and a stream of server-sent events of what
//! the store, the library and the database did for anybody.
//!
//! Whoever sees the page can break the database, for that is what it shows. So it exists only where
//! [`Settings::page`](crate::app::Settings::page) says so, and takes requests only under names that are this
//! machine's own, and from no other site.

mod controls;
mod events;
mod feed;
mod guard;
mod html;
mod state;
mod watch;

use std::sync::{Arc, OnceLock};

use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum::{Extension, Router};
use derp_kv_core::{KvStore, Layered, Observe, Observer};
use tokio::sync::{Mutex, Semaphore, watch as watched};

use crate::app::App;
use crate::database::Database;
use feed::Feed;
use futures_util::future::join_all;
use watch::{Both, Links, Looker, Watch};

/// How many streams of events there are at the most.
pub const MAX_STREAMS: usize = 64;

/// The products that the page shows.
const PRODUCTS: [u32; 2] = [42, 1];

/// The page: made before its service, and closed when that is to stop.
#[derive(Clone, Debug)]
pub struct Page(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    feed: Arc<Feed>,
    looker: OnceLock<Arc<Looker>>,
    /// Under which names the page is called, beside those of the loopback interface.
    hosts: Vec<String>,
    streams: Arc<Semaphore>,
    closed: watched::Sender<bool>,
    /// One herd at a time.
    herd: Mutex<()>,
}

impl Page {
    /// A page that calls the store `backend`, and is called under the names of the loopback interface and
    /// those in `hosts`, such as `shop.example` or `shop.example:8080`, as they are in the header `Host`.
    #[must_use]
    pub fn new(backend: &'static str, hosts: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(Inner {
            feed: Arc::new(Feed::new(backend)),
            looker: OnceLock::new(),
            hosts: hosts.into_iter().collect(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            closed: watched::Sender::new(false),
            herd: Mutex::new(()),
        }))
    }

    /// Hears of the store's links, and of nothing else: for the configuration of a store that takes an
    /// observer. What the helpers do the page hears without it.
    #[must_use]
    pub fn links(&self) -> impl Observer + use<> {
        Links(self.0.feed.clone())
    }

    /// Ends all streams of events, and lets no other begin, so that the service can stop.
    pub fn close(&self) {
        self.0.closed.send_replace(true);
    }

    /// The store with the page as a watcher, which also watches the database.
    pub(crate) fn watch(&self, kv: Arc<dyn KvStore>, database: &Arc<Database>) -> Arc<dyn KvStore> {
        let feed = self.0.feed.clone();
        database.watch(feed.clone());
        let looker = self.0.looker.get_or_init(|| Arc::new(Looker::new(kv.clone(), feed.clone())));
        let both = Both { before: kv.clone(), feed: feed.clone() };
        let kv = Layered::new(kv, Watch { looker: looker.clone(), feed });
        Arc::new(Layered::new(kv, Observe::with(both)))
    }

    /// Looks at a product in the store: another process may have changed what is there.
    pub(crate) async fn look_at(&self, product: u32) {
        if let Some(looker) = self.0.looker.get() {
            looker.look(product).await;
        }
    }

    async fn look_at_all(&self) {
        join_all(PRODUCTS.map(|product| self.look_at(product))).await;
    }

    pub(crate) fn routes(&self) -> Router<App> {
        let guard = from_fn_with_state(self.clone(), guard::guard);
        Router::new()
            .route("/", get(html::show))
            .route("/page/events", get(events::stream))
            .route("/page/limit", get(controls::limit))
            .route("/page/database", post(controls::database))
            .route("/page/herd", post(controls::herd))
            .route("/page/age", post(controls::age))
            .route_layer(Extension(self.clone()))
            .route_layer(guard)
    }
}
