//! The ways to get the page that are compared.

use std::sync::Arc;

use anyhow::Result;
use derp_kv_core::{Cache, Freshness, GuardedGet, KvStore, KvStoreExt};

use crate::outage::database::Database;
use crate::outage::plan::Plan;

pub(crate) const NAMES: [&str; 3] = ["no cache", "guarded_get", "stale data"];

/// One of them, on a database of its own.
pub(crate) struct Way {
    pub(crate) database: Arc<Database>,
    cache: Caching,
}

enum Caching {
    /// Each caller asks the database.
    Not,
    /// A page is gone when its TTL has ended, and a failure is forgotten at once.
    Guarded { kv: Arc<dyn KvStore>, key: String, options: GuardedGet },
    /// An old page is served while it is refreshed, and while that fails. A TTL after a failure it is
    /// tried again.
    Stale(Cache<Arc<dyn KvStore>, String>),
}

impl Way {
    pub(crate) fn all(
        plan: &Plan,
        kv: &Arc<dyn KvStore>,
        database: impl Fn() -> Database,
    ) -> [Self; 3] {
        // Longer than any query: nobody computes beside a holder that lives.
        let options = GuardedGet::new(plan.ttl()).lock_ttl(plan.outage);
        let prefix = |name: &str| format!("stampede:{}:{name}:", plan.run);
        let guarded = Caching::Guarded { kv: kv.clone(), key: prefix("guarded") + "page", options };
        let stale = options.stale(plan.total() * 10).backoff(plan.ttl());
        let stale = Caching::Stale(Cache::new(kv.clone(), prefix("stale"), stale));
        [Caching::Not, guarded, stale].map(|cache| Self { database: Arc::new(database()), cache })
    }

    /// Gets the page, and tells whether it is fresh.
    pub(crate) async fn get(&self) -> Result<bool> {
        let freshness = match &self.cache {
            Caching::Not => self.database.query().await.map(|_| Freshness::Fresh)?,
            Caching::Guarded { kv, key, options } => {
                let query = || self.database.query();
                kv.guarded_get_detailed(key, options, query).await?.freshness
            }
            Caching::Stale(cache) => {
                let database = self.database.clone();
                let query = move |_stale| async move { database.query().await };
                cache.get_detailed("page", query).await?.freshness
            }
        };
        Ok(freshness == Freshness::Fresh)
    }
}
