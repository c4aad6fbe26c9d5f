//! User-space instructions of one `get`, of all threads, counted by callgrind.

use std::env;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use derp_kv_valkey::test_server::Server;
use tokio::process::Command;

use crate::support::{Args, Data, Op, Row, Rows, Subjects, reach_contenders};

/// The first argument of a process that only calls.
pub(crate) const CALLS: &str = "--calls";

const SUBJECTS: [&str; 5] = ["redis-rs", "derp-kv", "derp-kv, dyn", "fred", "rustis"];
const VALUE_BYTES: usize = 64;
/// What the larger number costs beyond the smaller is the calls' own.
const NUMBERS: [usize; 2] = [3_200, 9_600];

pub(crate) async fn measure(args: &Args, rows: &mut Rows) -> Result<()> {
    let valgrind =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().await.is_ok();
    if args.short || !valgrind {
        eprintln!("instructions are left out: they need valgrind, and are not counted in short");
        return Ok(());
    }
    for callers in [1, 64] {
        for subject in SUBJECTS.into_iter().filter(|subject| args.wants_subject(subject)) {
            if !args.wants(&format!("reach/instructions/{callers}")) {
                continue;
            }
            let [few, many] = NUMBERS;
            let more = count(subject, callers, many).await? - count(subject, callers, few).await?;
            rows.push(&Row {
                suite: "reach",
                bench: "get".to_owned(),
                subject: subject.to_owned(),
                callers: Some(callers),
                value_bytes: Some(VALUE_BYTES),
                instructions_per_op: Some(more / (many - few) as f64),
                ..Row::default()
            })?;
        }
    }
    Ok(())
}

/// What callgrind counts in a process that makes so many calls.
async fn count(subject: &str, callers: usize, calls: usize) -> Result<f64> {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args([CALLS, subject, &callers.to_string(), &calls.to_string()])
        .output()
        .await?;
    let told = String::from_utf8_lossy(&run.stderr);
    ensure!(run.status.success(), "{told}");
    let collected = told.lines().find_map(|line| line.split_once("Collected :"));
    Ok(collected.context("callgrind tells no count")?.1.trim().parse()?)
}

/// Within the process that is counted.
pub(crate) async fn run(words: &[String]) -> Result<()> {
    let [subject, callers, calls] = words else { anyhow::bail!("a subject and two numbers") };
    let (callers, calls): (usize, usize) = (callers.parse()?, calls.parse()?);
    let server = Server::start().await?;
    let subjects = Subjects::standalone(&server).await?;
    let data = Data::new(100, VALUE_BYTES);
    data.fill(&subjects.redis_rs).await?;
    let contenders = reach_contenders(&subjects, Op::Get, data);
    let contender = contenders.into_iter().find(|(name, _)| name == subject);
    contender.context("no such subject")?.1.round(callers, calls / callers).await?;
    Ok(())
}
