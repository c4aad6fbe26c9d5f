//! What a stampede costs, and what it costs behind `guarded_get`; and what an outage of the database
//! costs, and what it costs where there is stale data to serve.
//!
//! `stampede [--scenario herd] [--config derp.toml] [--callers 500] [--write PICTURE.svg]` and
//! `stampede --scenario outage [--config derp.toml] [--outage 10] [--write PICTURE.svg]`: one process
//! on the embedded store, two on Valkey.

mod connections;
mod counted;
mod herd;
mod options;
mod outage;
mod processes;
mod progress;
mod work;

use anyhow::Result;
use derp_kv_examples::config::Config;
use options::{Options, Scenario};

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse()?;
    let config = match &options.config {
        Some(path) => Config::from_toml_path(path)?,
        None => Config::default(),
    };
    if let Some(work) = options.worker {
        return processes::work(&work, config).await;
    }
    match options.scenario {
        Scenario::Herd => herd::show(&options, &config).await,
        Scenario::Outage => outage::show(&options, &config).await,
    }
}
