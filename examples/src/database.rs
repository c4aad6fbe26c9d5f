//! A slow database that exists only in memory and counts what it is asked to do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A product as the shop shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Product {
    /// What it is known by.
    pub id: u32,
    /// What it is called.
    pub name: &'static str,
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
    /// Notices counted.
    pub notices: u64,
}

/// The database.
#[derive(Debug)]
pub struct Database {
    products: BTreeMap<u32, Product>,
    delay: Duration,
    queries: AtomicU64,
    orders: AtomicU64,
    payments: AtomicU64,
    notices: AtomicU64,
}

impl Database {
    /// A database that takes `delay` for each query.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        let products = [
            Product { id: 1, name: "teapot", price_cents: 2_900 },
            Product { id: 42, name: "kettle", price_cents: 4_950 },
        ];
        Self {
            products: products.into_iter().map(|product| (product.id, product)).collect(),
            delay,
            queries: AtomicU64::new(0),
            orders: AtomicU64::new(0),
            payments: AtomicU64::new(0),
            notices: AtomicU64::new(0),
        }
    }

    /// Looks a product up; none: there is no such product.
    pub async fn product(&self, id: u32) -> Option<Product> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.delay).await;
        self.products.get(&id).cloned()
    }

    /// Places an order; none: there is no such product.
    pub async fn place_order(&self, product_id: u32, quantity: u32) -> Option<Order> {
        tokio::time::sleep(self.delay).await;
        let product = self.products.get(&product_id)?;
        let order_id = self.orders.fetch_add(1, Ordering::Relaxed) + 1;
        let total_cents = product.price_cents * u64::from(quantity);
        Some(Order { order_id, product_id, quantity, total_cents })
    }

    /// Books a payment.
    pub async fn book_payment(&self) {
        tokio::time::sleep(self.delay).await;
        self.payments.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a notice that nobody would miss.
    pub fn count_notice(&self) {
        self.notices.fetch_add(1, Ordering::Relaxed);
    }

    /// What was done since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            queries: read(&self.queries),
            orders: read(&self.orders),
            payments: read(&self.payments),
            notices: read(&self.notices),
        }
    }
}
