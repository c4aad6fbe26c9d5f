//! A service with the page.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::KvStore;
use derp_kv_examples::app::Settings;
use derp_kv_examples::database::Database;
use derp_kv_examples::page::Page;
use derp_kv_memory::MemoryStore;
use serde_json::{Value, json};

use crate::common::{Answer, Service, send};

pub(crate) const ORDER: &str = r#"{"product_id":42,"quantity":2}"#;
pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A service with the page.
pub(crate) struct Shop {
    pub(crate) service: Service,
    pub(crate) page: Page,
    pub(crate) database: Arc<Database>,
}

impl Shop {
    pub(crate) async fn start() -> Self {
        Self::on(Arc::new(MemoryStore::new()), None).await
    }

    pub(crate) async fn on(kv: Arc<dyn KvStore>, host: Option<&str>) -> Self {
        Self::with(Page::new("memory", host.map(str::to_owned)), kv).await
    }

    /// A service with a page that was made before its store.
    pub(crate) async fn with(page: Page, kv: Arc<dyn KvStore>) -> Self {
        let database = Arc::new(Database::new(Duration::from_millis(50)));
        let settings = Settings { page: Some(page.clone()), ..Settings::default() };
        let service = Service::start(kv, database.clone(), settings).await;
        Self { service, page, database }
    }

    pub(crate) fn at(&self) -> SocketAddr {
        self.service.at
    }

    pub(crate) async fn control(&self, path: &str, body: &Value) -> Answer {
        send(self.at(), "POST", path, &[JSON], &body.to_string()).await
    }

    pub(crate) async fn replica(&self, replica: &str) {
        let answer = self.control("/page/database", &json!({ "replica": replica })).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    pub(crate) async fn herd(&self) -> Value {
        self.control("/page/herd", &json!({ "product": 42 })).await.json()
    }
}
