//! The client of Python programs, which lives in a process of its own.

use std::path::Path;

use anyhow::{Context as _, Result};
use derp_kv_valkey::test_server::Server;
use futures_util::future::BoxFuture;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::Data;
use super::measure::{Round, Sample};
use super::worker::Worker;

/// Plain `get`s by valkey-glide: as many asyncio tasks as there are callers.
pub struct Glide(Mutex<Worker>);

impl Glide {
    /// `None` where `GLIDE_PYTHON` names no interpreter that has it.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(server: &Server, data: &'static Data) -> Result<Option<Self>> {
        let Some(python) = std::env::var_os("GLIDE_PYTHON").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/reach/valkey_glide.py");
        let mut command = Command::new(python);
        command.arg(program).arg(server.port().to_string()).arg(data.value.len().to_string());
        let worker = Worker::spawn(command.args(&data.keys)).await.context("valkey-glide")?;
        Ok(Some(Self(Mutex::new(worker))))
    }
}

impl Round for Glide {
    fn round(&self, callers: usize, turns: usize) -> BoxFuture<'_, Result<Sample>> {
        Box::pin(async move {
            let mut worker = self.0.lock().await;
            worker.tell(&format!("{callers} {turns}")).await?;
            let line = worker.hear().await?;
            let numbers: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
            let [ops_per_s, cpu_ns_per_op, p50_us, p99_us] = numbers.try_into().ok().context(
                "valkey-glide answers operations, processor time, and two quantiles of latency",
            )?;
            Ok(Sample { ops_per_s, cpu_ns_per_op, p50_us, p99_us })
        })
    }
}
