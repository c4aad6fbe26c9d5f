//! The client processes, as their parent sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::client_process::{ADDRESSES, ANSWER, NEVER, PROCESS};
use crate::report::{GROUPS, Place, Report};
use crate::stage::Result;

/// A client process; it ends with the value, or when this process does.
#[derive(Debug)]
struct Client {
    child: Child,
    /// Without it the process ends.
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(process: usize, addresses: &str) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(["worker", "--exact", "--nocapture"])
            .env(PROCESS, process.to_string())
            .env(ADDRESSES, addresses)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        Ok(Self { child, stdin, lines })
    }

    async fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("the process was told to end")?;
        Ok(stdin.write_all(format!("{line}\n").as_bytes()).await?)
    }

    async fn answer(&mut self) -> Result<String> {
        let answer = async {
            while let Some(line) = self.lines.next_line().await? {
                if let Some(answer) = line.strip_prefix(ANSWER) {
                    return Ok(answer.to_owned());
                }
            }
            Err("a client process has ended".into())
        };
        timeout(2 * NEVER, answer).await.map_err(|_| "a client process does not answer")?
    }
}

/// How long it took until new calls succeed, and until every caller has had a success.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    pub(crate) new_calls: Duration,
    pub(crate) every_caller: Duration,
}

#[derive(Debug)]
pub(crate) struct Clients {
    clients: Vec<Client>,
    eras: Vec<u32>,
    /// Where acknowledged writes may be lost: a primary has died with its latest ones.
    pub(crate) deaths: BTreeSet<Place>,
    pub(crate) recoveries: BTreeMap<&'static str, Vec<Recovery>>,
}

impl Clients {
    pub(crate) async fn start(addresses: &str) -> Result<Self> {
        let mut clients = Vec::new();
        for process in 0..2 {
            let mut client = Client::start(process, addresses)?;
            // The first writes what the others look for.
            client.answer().await?;
            clients.push(client);
        }
        let (deaths, recoveries) = (BTreeSet::new(), BTreeMap::new());
        Ok(Self { clients, eras: vec![0; GROUPS], deaths, recoveries })
    }

    async fn ask(&mut self, line: &str) -> Result<Vec<String>> {
        for client in &mut self.clients {
            client.tell(line).await?;
        }
        let mut answers = Vec::new();
        for client in &mut self.clients {
            answers.push(client.answer().await?);
        }
        Ok(answers)
    }

    /// Begins a new era for these groups. Nobody uses the keys of the old one any more.
    pub(crate) async fn turn(&mut self, groups: &[usize]) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let numbers: Vec<_> = groups.iter().map(usize::to_string).collect();
        self.ask(&format!("turn {}", numbers.join(" "))).await?;
        for group in groups {
            self.eras[*group] += 1;
        }
        Ok(())
    }

    /// The present era of these groups is one with a death.
    pub(crate) fn mourn(&mut self, groups: &[usize]) {
        let places = groups.iter().map(|group| Place { group: *group, era: self.eras[*group] });
        self.deaths.extend(places);
    }

    /// Waits until the callers are back from a fault that was over at `healed`.
    pub(crate) async fn recover(&mut self, fault: &'static str, healed: u64) -> Result<()> {
        let (mut new_calls, mut every_caller, mut last) = (0, 0, String::new());
        for answer in self.ask(&format!("healed {healed}")).await? {
            let mut words = answer.splitn(3, ' ');
            let mut number = || words.next().unwrap_or_default().parse::<u64>();
            let (fresh, every) = (number()?, number()?);
            new_calls = new_calls.max(fresh);
            if every >= every_caller {
                (every_caller, last) = (every, words.next().unwrap_or_default().to_owned());
            }
        }
        println!(
            "           {fault}: new calls after {new_calls} ms, every caller after {every_caller} ms (last: {last})"
        );
        let millis = Duration::from_millis;
        let recovery =
            Recovery { new_calls: millis(new_calls), every_caller: millis(every_caller) };
        self.recoveries.entry(fault).or_default().push(recovery);
        Ok(())
    }

    /// Ends the processes and gives what their callers have seen.
    pub(crate) async fn stop(&mut self) -> Result<Vec<Report>> {
        let answers = self.ask("stop").await?;
        let mut reports = Vec::new();
        for (client, answer) in self.clients.iter_mut().zip(answers) {
            reports.push(serde_json::from_str(&answer)?);
            client.stdin = None;
            let status = timeout(NEVER, client.child.wait()).await??;
            if !status.success() {
                return Err(format!("a client process has failed: {status}").into());
            }
        }
        Ok(reports)
    }
}
