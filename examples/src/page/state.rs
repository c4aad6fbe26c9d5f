//! What the page knows, and how it is told to browsers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use derp_kv_core::Expiry;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::PRODUCTS;
use crate::database::{Replica, Stats};

/// How many nodes of the store are told apart.
const MAX_NODES: usize = 256;

/// Everything that has changed since the start.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) backend: &'static str,
    /// Whether the last call of the store that says so was answered.
    pub(crate) answers: bool,
    /// The nodes whose link is lost.
    pub(crate) lost: BTreeSet<String>,
    /// Calls of the store's primitives.
    pub(crate) commands: u64,
    /// Answers of the library, by helper and by what they came to.
    pub(crate) answers_of: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    pub(crate) refreshes_failed: u64,
    pub(crate) replica: Replica,
    pub(crate) stats: Stats,
    pub(crate) products: BTreeMap<u32, Product>,
    pub(crate) herd: Option<Herd>,
}

/// A product as the store has it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Product {
    /// None where it is not cached.
    kept: Option<Kept>,
    /// Queries for it that are under way.
    pub(crate) queries: u32,
}

#[derive(Clone, Copy, Debug)]
enum Kept {
    FreshUntil(Instant),
    StaleSince(Instant),
    Forever,
}

/// What became of many requests at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Herd {
    pub(crate) product: u32,
    pub(crate) requests: usize,
    /// None while they are under way.
    pub(crate) outcomes: Option<BTreeMap<&'static str, usize>>,
    /// Queries that reached the database.
    pub(crate) queries: u64,
}

impl State {
    pub(crate) fn new(backend: &'static str) -> Self {
        Self {
            backend,
            answers: true,
            lost: BTreeSet::new(),
            commands: 0,
            answers_of: BTreeMap::new(),
            refreshes_failed: 0,
            replica: Replica::Works,
            stats: Stats { queries: 0, orders: 0, payments: 0, paid_cents: 0, notices: 0 },
            products: PRODUCTS.map(|id| (id, Product::default())).into(),
            herd: None,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.answers && self.lost.is_empty()
    }

    pub(crate) fn lose(&mut self, node: &str) {
        if self.lost.len() < MAX_NODES {
            self.lost.insert(node.to_owned());
        }
    }

    pub(crate) fn store_message(&self) -> Value {
        json!({ "backend": self.backend, "up": self.is_up() })
    }

    pub(crate) fn database_message(&self) -> Value {
        json!({ "replica": self.replica, "stats": self.stats })
    }

    pub(crate) fn product_message(&self, id: u32) -> Value {
        let product = self.products.get(&id).copied().unwrap_or_default();
        let now = Instant::now();
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let (state, left) = match product.kept {
            None => ("absent", None),
            Some(Kept::Forever) => ("fresh", None),
            Some(Kept::FreshUntil(end)) if end > now => ("fresh", Some(millis(end - now))),
            Some(Kept::FreshUntil(end) | Kept::StaleSince(end)) => {
                ("stale", Some(-millis(now.saturating_duration_since(end))))
            }
        };
        json!({ "id": id, "state": state, "left_ms": left, "queries": product.queries })
    }

    /// All of it.
    pub(crate) fn snapshot(&self) -> Value {
        let products = self.products.keys().map(|id| self.product_message(*id));
        json!({
            "store": self.store_message(),
            "commands": self.commands,
            "calls": self.answers_of,
            "refreshes_failed": self.refreshes_failed,
            "database": self.database_message(),
            "products": products.collect::<Vec<_>>(),
            "herd": self.herd,
        })
    }
}

impl Product {
    /// Takes what the store says is left of the product's key, which stays for `stale` after its TTL.
    pub(crate) fn seen(&mut self, left: Option<Expiry>, stale: Duration) {
        let now = Instant::now();
        self.kept = left.map(|left| match left.remaining() {
            None => Kept::Forever,
            Some(left) => match left.checked_sub(stale) {
                Some(fresh) if !fresh.is_zero() => Kept::FreshUntil(now + fresh),
                _ => Kept::StaleSince(now.checked_sub(stale.saturating_sub(left)).unwrap_or(now)),
            },
        });
    }
}
