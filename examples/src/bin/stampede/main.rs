//! What a stampede costs, and what it costs behind `guarded_get`.
//!
//! `stampede [--config derp.toml] [--callers 500] [--svg docs/stampede.svg]`: one process on the
//! embedded store, two on Valkey.

mod counted;
mod herd;
mod picture;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use counted::{Calls, Counted};
use derp_kv_examples::config::Config;
use futures_util::future::try_join_all;
use herd::Herd;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

const USAGE: &str =
    "usage: stampede [--config derp.toml] [--callers 500] [--svg docs/stampede.svg]";
const SCENARIOS: [(&str, bool); 2] = [("unprotected", false), ("guarded_get", true)];

struct Options {
    config: Option<PathBuf>,
    callers: usize,
    svg: PathBuf,
    /// Set in the processes that this one starts: the key to run on.
    worker: Option<String>,
    guarded: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = options()?;
    let config = match &options.config {
        Some(path) => Config::from_toml_path(path)?,
        None => Config::default(),
    };
    if let Some(key) = &options.worker {
        return work(&options, config, key).await;
    }
    let processes = if config.backend() == "valkey" { 2 } else { 1 };
    println!("{processes} x {} callers on the {} store", options.callers, config.backend());

    let run = std::process::id();
    let mut herds = Vec::new();
    for (name, guarded) in SCENARIOS {
        // A key of its own for each run: cold, whatever earlier runs left.
        let key = format!("stampede:{run}:{name}");
        let herd = async {
            if processes == 1 {
                let kv = Counted::new(config.clone().open().await?, Calls::default());
                return herd::run(&kv, &key, options.callers, guarded).await;
            }
            let starts = (0..processes).map(|_| start(&options, &key, guarded));
            let workers = try_join_all(starts).await?;
            let mut all = Herd::default();
            for herd in try_join_all(workers.into_iter().map(release)).await? {
                all.add(herd);
            }
            Ok(all)
        };
        herds.push((name, watched(name, herd).await?));
    }

    println!(
        "{:<12} {:>8} {:>9} {:>12} {:>9} {:>9} {:>9}",
        "scenario", "callers", "computes", "store calls", "p50 ms", "p99 ms", "max ms"
    );
    for (name, herd) in &herds {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| herd.percentile(share));
        println!(
            "{name:<12} {:>8} {:>9} {:>12} {p50:>9.1} {p99:>9.1} {max:>9.1}",
            herd.latencies.len(),
            herd.computes,
            herd.calls
        );
    }
    picture::write(&options.svg, &herds)?;
    println!("picture: {}", options.svg.display());
    Ok(())
}

fn options() -> Result<Options> {
    let svg = PathBuf::from("docs/stampede.svg");
    let mut options = Options { config: None, callers: 500, svg, worker: None, guarded: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().context(USAGE)?;
        match arg.as_str() {
            "--config" => options.config = Some(value.into()),
            "--callers" => options.callers = value.parse().context("--callers: not a number")?,
            "--svg" => options.svg = value.into(),
            "--worker" => options.worker = Some(value),
            "--guarded" => options.guarded = value == "true",
            _ => bail!(USAGE),
        }
    }
    Ok(options)
}

/// Shows how far the computation is, where somebody looks.
async fn watched<T>(name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    const WIDTH: u32 = 20;
    let mut ticks = tokio::time::interval(herd::COMPUTE / WIDTH);
    let mut done = 0;
    tokio::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => {
                eprint!("\r\x1b[K");
                return result;
            }
            _ = ticks.tick() => {
                done = (done + 1).min(WIDTH);
                let (full, empty) = (done as usize, (WIDTH - done) as usize);
                eprint!("\r{name:<12} [{}{}]", "#".repeat(full), " ".repeat(empty));
            }
        }
    }
}

/// A process of the herd: connects, waits for the word, runs, and prints what it did.
async fn work(options: &Options, config: Config, key: &str) -> Result<()> {
    let kv: Arc<_> = config.open().await?;
    println!("ready");
    BufReader::new(tokio::io::stdin()).read_line(&mut String::new()).await?;
    let kv = Counted::new(kv, Calls::default());
    let herd = herd::run(&kv, key, options.callers, options.guarded).await?;
    println!("{}", serde_json::to_string(&herd)?);
    Ok(())
}

/// Starts a process of the herd, and waits until it is connected.
async fn start(options: &Options, key: &str, guarded: bool) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(config) = &options.config {
        command.arg("--config").arg(config);
    }
    command.args(["--worker", key, "--guarded", &guarded.to_string()]);
    command.args(["--callers", &options.callers.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("cannot start a worker")?;
    let stdout = child.stdout.as_mut().context("a worker has a pipe")?;
    // Unbuffered: what comes after this line is read by somebody else.
    let mut line = [0; 6];
    tokio::io::AsyncReadExt::read_exact(stdout, &mut line).await.context("a worker failed")?;
    Ok(child)
}

/// Gives the word, and reads what the process did.
async fn release(mut child: Child) -> Result<Herd> {
    child.stdin.take().context("a worker has a pipe")?.write_all(b"go\n").await?;
    let output = child.wait_with_output().await?;
    serde_json::from_slice(&output.stdout).context("a worker failed")
}
