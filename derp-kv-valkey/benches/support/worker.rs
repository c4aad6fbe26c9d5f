use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines, Stdin, Stdout};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The first argument of a process that works for another.
pub(crate) const WORKER: &str = "--worker";

/// A process that works for this one; the two exchange lines.
pub(crate) struct Worker {
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts this program again with these arguments, and waits until it is ready.
    pub(crate) async fn start(args: &[&str]) -> Result<Self> {
        Self::spawn(Command::new(std::env::current_exe()?).arg(WORKER).args(args)).await
    }

    /// Starts any program that says `ready` first, and waits until it does.
    pub(crate) async fn spawn(command: &mut Command) -> Result<Self> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let to = child.stdin.take().context("no standard input")?;
        let from = child.stdout.take().context("no standard output")?;
        let mut worker = Self { child, to, from: BufReader::new(from).lines() };
        ensure!(worker.hear().await? == "ready");
        Ok(worker)
    }

    pub(crate) async fn tell(&mut self, line: &str) -> Result<()> {
        Ok(self.to.write_all(format!("{line}\n").as_bytes()).await?)
    }

    pub(crate) async fn hear(&mut self) -> Result<String> {
        self.from.next_line().await?.context("the worker has ended")
    }

    /// Ends it at once, as a crash does.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Lets it end: nothing more is told.
    pub(crate) async fn end(self) -> Result<()> {
        let Self { mut child, to, .. } = self;
        drop(to);
        let status = child.wait().await?;
        if !status.success() {
            bail!("a worker failed: {status}");
        }
        Ok(())
    }
}

/// The other end, within the worker.
pub(crate) struct Master {
    from: Lines<BufReader<Stdin>>,
    to: Stdout,
}

impl Master {
    /// Says that this process is ready.
    pub(crate) async fn greet() -> Result<Self> {
        let from = BufReader::new(tokio::io::stdin()).lines();
        let mut master = Self { from, to: tokio::io::stdout() };
        master.tell("ready").await?;
        Ok(master)
    }

    pub(crate) async fn tell(&mut self, line: &str) -> Result<()> {
        self.to.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.to.flush().await?)
    }

    /// The next line, or none where there is nothing more to do.
    pub(crate) async fn hear(&mut self) -> Result<Option<String>> {
        Ok(self.from.next_line().await?)
    }
}
