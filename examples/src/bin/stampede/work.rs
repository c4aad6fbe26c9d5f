//! What one process does of a scenario.

use std::sync::Arc;

use anyhow::Result;
use derp_kv_core::KvStore;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::herd::run::Herd;
use crate::outage::plan::Plan;
use crate::outage::run;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    Herd(Herd),
    Outage(Plan),
}

impl Work {
    /// Does it, and tells what came of it.
    pub(crate) async fn run(&self, kv: Arc<dyn KvStore>) -> Result<Value> {
        Ok(match self {
            Self::Herd(herd) => serde_json::to_value(herd.run(kv).await?)?,
            Self::Outage(plan) => serde_json::to_value(run::run(*plan, kv).await?)?,
        })
    }
}
