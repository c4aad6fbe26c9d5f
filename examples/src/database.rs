//! A slow database that exists only in memory and counts what it is asked to do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A product as the shop shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// What it is known by.
    pub id: u32,
    /// What it is called.
    pub name: String,
    /// What one costs, in cents.
    pub price_cents: u64,
}

/// An order that was placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// A number of its own.
    pub order_id: u64,
    /// Which product.
    pub product_id: u32,
    /// How many.
    pub quantity: u32,
    /// What all of them cost, in cents.
    pub total_cents: u64,
}

/// What the database did since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Products looked up for a page.
    pub queries: u64,
    /// Orders placed.
    pub orders: u64,
    /// Payments booked.
    pub payments: u64,
    /// What was paid, in cents.
    pub paid_cents: u64,
    /// Notices counted.
    pub notices: u64,
}

/// How the replica is from which products are read. Everything else goes to the primary, which works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replica {
    /// It answers.
    Works,
    /// It answers each query after [`SLOW`].
    Slow,
    /// It answers each query with an error.
    Fails,
    /// It answers no query before this changes.
    Hangs,
}

/// A query failed, or took longer than [`QUERY_TIMEOUT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database does not answer")]
pub struct QueryFailed;

/// After so long a query for a product fails.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a query for a product takes while the replica is [slow](Replica::Slow).
pub const SLOW: Duration = Duration::from_secs(2);

/// Hears what the database does, in the order in which it does it. It must return at once.
pub trait Watcher: fmt::Debug + Send + Sync {
    /// A counter has changed, or how the replica is.
    fn changed(&self, replica: Replica, stats: Stats);

    /// A query for a product has begun, or has ended in whatever way.
    fn query(&self, product: u32, under_way: bool);
}

/// The database.
#[derive(Debug)]
pub struct Database {
    products: Mutex<BTreeMap<u32, Product>>,
    replica: watch::Sender<Replica>,
    delay: Duration,
    queries: AtomicU64,
    orders: AtomicU64,
    payments: AtomicU64,
    paid_cents: AtomicU64,
    notices: AtomicU64,
    watcher: OnceLock<Arc<dyn Watcher>>,
}

impl Database {
    /// A database that takes `delay` for each query.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        let product =
            |id, name: &str, price_cents| (id, Product { id, name: name.to_owned(), price_cents });
        Self {
            products: Mutex::new(
                [product(1, "teapot", 2_900), product(42, "kettle", 4_950)].into(),
            ),
            replica: watch::Sender::new(Replica::Works),
            delay,
            queries: AtomicU64::new(0),
            orders: AtomicU64::new(0),
            payments: AtomicU64::new(0),
            paid_cents: AtomicU64::new(0),
            notices: AtomicU64::new(0),
            watcher: OnceLock::new(),
        }
    }

    /// Lets `watcher` hear what the database does from now on. There is one: a later one hears nothing.
    pub fn watch(&self, watcher: Arc<dyn Watcher>) {
        let _ = self.watcher.set(watcher);
        self.tell();
    }

    /// Looks a product up; none: there is no such product.
    ///
    /// # Errors
    ///
    /// The replica fails, or does not answer within [`QUERY_TIMEOUT`].
    pub async fn product(&self, id: u32) -> Result<Option<Product>, QueryFailed> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.tell();
        let _under_way = self.watcher.get().map(|watcher| UnderWay::begin(&**watcher, id));
        // It is read at once, and under way for long: by the time it comes it may be out of date.
        let product = self.products().get(&id).cloned();
        let mut replica = self.replica.subscribe();
        let slow = *replica.borrow() == Replica::Slow;
        let answer = async {
            sleep(if slow { SLOW } else { self.delay }).await;
            // The sender lives as long as `self`.
            let replica = replica.wait_for(|replica| *replica != Replica::Hangs).await;
            match replica.as_deref() {
                Ok(Replica::Works | Replica::Slow) => Ok(product),
                _ => Err(QueryFailed),
            }
        };
        timeout(QUERY_TIMEOUT, answer).await.unwrap_or(Err(QueryFailed))
    }

    /// Changes a product, and returns it as it is now; none: there is no such product.
    pub async fn change_product(&self, id: u32, name: String, price_cents: u64) -> Option<Product> {
        sleep(self.delay).await;
        let mut products = self.products();
        let product = products.get_mut(&id)?;
        *product = Product { id, name, price_cents };
        Some(product.clone())
    }

    /// Places an order; none: there is no such product.
    pub async fn place_order(&self, product_id: u32, quantity: u32) -> Option<Order> {
        sleep(self.delay).await;
        let price_cents = self.products().get(&product_id)?.price_cents;
        let order_id = self.orders.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell();
        let total_cents = price_cents * u64::from(quantity);
        Some(Order { order_id, product_id, quantity, total_cents })
    }

    /// Books a payment.
    pub async fn book_payment(&self, cents: u64) {
        sleep(self.delay).await;
        self.payments.fetch_add(1, Ordering::Relaxed);
        self.paid_cents.fetch_add(cents, Ordering::Relaxed);
        self.tell();
    }

    /// Counts a notice that nobody would miss.
    pub fn count_notice(&self) {
        self.notices.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// Lets the replica work, be slow, fail or hang, for tests and for the page.
    pub fn set_replica(&self, replica: Replica) {
        self.replica.send_replace(replica);
        self.tell();
    }

    /// What was done since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            queries: read(&self.queries),
            orders: read(&self.orders),
            payments: read(&self.payments),
            paid_cents: read(&self.paid_cents),
            notices: read(&self.notices),
        }
    }

    fn tell(&self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.changed(*self.replica.borrow(), self.stats());
        }
    }

    fn products(&self) -> MutexGuard<'_, BTreeMap<u32, Product>> {
        self.products.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A query that somebody watches. Dropped, it has ended.
struct UnderWay<'a> {
    watcher: &'a dyn Watcher,
    product: u32,
}

impl<'a> UnderWay<'a> {
    fn begin(watcher: &'a dyn Watcher, product: u32) -> Self {
        watcher.query(product, true);
        Self { watcher, product }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.watcher.query(self.product, false);
    }
}
