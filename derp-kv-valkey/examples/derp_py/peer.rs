use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// derp-py in a process of its own, which answers one call after the other.
pub(crate) struct Peer {
    process: Child,
    calls: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What `idempotent_execute` of derp-py returned. The body is the JSON that Python makes of it.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Executed {
    pub(crate) body: String,
    pub(crate) status_code: u16,
    pub(crate) is_replay: bool,
    /// How often it did the work.
    pub(crate) runs: u32,
}

#[derive(Deserialize)]
struct Event {
    before: bool,
}

#[derive(Deserialize)]
struct Limit {
    allowed: bool,
    count: u64,
}

impl Peer {
    /// Starts it on the server at this port.
    pub(crate) fn start(port: u16) -> anyhow::Result<Self> {
        let python = std::env::var_os("DERP_PY")
            .context("DERP_PY is to name a Python that has derp-py: run scripts/derp-py.sh")?;
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/derp_py/peer.py"))
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("DERP_PY cannot be started")?;
        let calls = process.stdin.take().context("a pipe")?;
        let answers = BufReader::new(process.stdout.take().context("a pipe")?).lines();
        Ok(Self { process, calls, answers })
    }

    async fn ask(&mut self, call: &Value) -> anyhow::Result<()> {
        Ok(self.calls.write_all(format!("{call}\n").as_bytes()).await?)
    }

    async fn line(&mut self) -> anyhow::Result<Value> {
        let line = self.answers.next_line().await?;
        Ok(serde_json::from_str(&line.context("derp-py ended, see its error above")?)?)
    }

    async fn answer<T: DeserializeOwned>(&mut self, call: &Value) -> anyhow::Result<T> {
        self.ask(call).await?;
        Ok(serde_json::from_value(self.line().await?)?)
    }

    /// Executes `key` with work that returns `body`, which is JSON, and waits for the outcome.
    pub(crate) async fn execute(
        &mut self,
        key: &str,
        status_code: u16,
        body: &str,
    ) -> anyhow::Result<Executed> {
        self.ask_to_execute(key, status_code, body).await?;
        self.executed().await
    }

    /// Sends what [`execute`](Self::execute) sends; [`executed`](Self::executed) is its outcome.
    pub(crate) async fn ask_to_execute(
        &mut self,
        key: &str,
        status_code: u16,
        body: &str,
    ) -> anyhow::Result<()> {
        let call =
            json!({ "call": "execute", "key": key, "status_code": status_code, "body": body });
        self.ask(&call).await
    }

    /// Begins work that takes so many `seconds`, and returns when it has begun.
    pub(crate) async fn begin(
        &mut self,
        key: &str,
        status_code: u16,
        body: &str,
        seconds: f64,
    ) -> anyhow::Result<()> {
        self.ask(&json!({
            "call": "execute", "key": key, "status_code": status_code, "body": body,
            "seconds": seconds,
        }))
        .await?;
        let line = self.line().await?;
        ensure!(line["began"] == key, "the work did not begin: {line}");
        Ok(())
    }

    /// The outcome of the work that was asked for.
    pub(crate) async fn executed(&mut self) -> anyhow::Result<Executed> {
        loop {
            let line = self.line().await?;
            if line.get("began").is_none() {
                return Ok(serde_json::from_value(line)?);
            }
        }
    }

    /// Whether derp-py knows the event; from now on it does.
    pub(crate) async fn event(&mut self, id: &str) -> anyhow::Result<bool> {
        Ok(self.answer::<Event>(&json!({ "call": "event", "id": id })).await?.before)
    }

    /// Counts one call, and tells whether it is allowed and how many there were.
    pub(crate) async fn limit(
        &mut self,
        id: &str,
        limit: u64,
        window: u64,
    ) -> anyhow::Result<(bool, u64)> {
        let call = json!({ "call": "limit", "id": id, "limit": limit, "window": window });
        let Limit { allowed, count } = self.answer(&call).await?;
        Ok((allowed, count))
    }

    /// Lets it end by itself.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        drop(self.calls);
        let status = self.process.wait().await?;
        if !status.success() {
            bail!("derp-py ended with {status}");
        }
        Ok(())
    }
}
