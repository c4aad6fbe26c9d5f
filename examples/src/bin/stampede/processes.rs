//! The processes that share the work: this one on the embedded store, two others on Valkey.

use std::process::Stdio;

use anyhow::{Context, Result};
use derp_kv_examples::config::Config;
use futures_util::future::try_join_all;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::options::Options;
use crate::work::Work;

/// How many processes work on a store.
pub(crate) fn count(config: &Config) -> u32 {
    if config.backend() == "valkey" { 2 } else { 1 }
}

/// Lets all processes do `work` at the same time, and tells what each of them did.
pub(crate) async fn all_do<T: DeserializeOwned>(
    work: &Work,
    options: &Options,
    config: &Config,
) -> Result<Vec<T>> {
    let processes = count(config);
    if processes == 1 {
        let done = work.run(config.clone().open().await?).await?;
        return Ok(vec![serde_json::from_value(done)?]);
    }
    let workers = try_join_all((0..processes).map(|_| start(work, options))).await?;
    try_join_all(workers.into_iter().map(release)).await
}

/// The whole life of a worker: connects, waits for the word, works, and prints what it did.
pub(crate) async fn work(work: &Work, config: Config) -> Result<()> {
    let kv = config.open().await?;
    println!("ready");
    BufReader::new(tokio::io::stdin()).read_line(&mut String::new()).await?;
    println!("{}", work.run(kv).await?);
    Ok(())
}

/// Starts a worker, and waits until it is connected.
async fn start(work: &Work, options: &Options) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(config) = &options.config {
        command.arg("--config").arg(config);
    }
    command.arg("--worker").arg(serde_json::to_string(work)?);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("cannot start a worker")?;
    let stdout = child.stdout.as_mut().context("a worker has a pipe")?;
    // Unbuffered: what comes after this line is read by somebody else.
    let mut line = [0; 6];
    stdout.read_exact(&mut line).await.context("a worker failed")?;
    Ok(child)
}

/// Gives the word, and reads what the worker did.
async fn release<T: DeserializeOwned>(mut child: Child) -> Result<T> {
    child.stdin.take().context("a worker has a pipe")?.write_all(b"go\n").await?;
    let output = child.wait_with_output().await?;
    serde_json::from_slice(&output.stdout).context("a worker failed")
}
