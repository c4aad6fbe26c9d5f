//! The in-memory store beside bare maps and caches: processor time, memory, expiry.

mod expiry;
mod limits;
mod load;
mod scan;
mod size;
mod subject;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_time().build()?)
}

fn clock(id: ClockId) -> Duration {
    let spent = clock_gettime(id);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let value_of = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let short = args.iter().any(|arg| arg == "--short");
    let entries = if short { 10_000 } else { 1_000_000 };
    if let Some(subject) = value_of("--entry-size") {
        println!("{}", runtime()?.block_on(size::measure(&subject, entries))?);
        return Ok(());
    }
    let mut out = match value_of("--out") {
        Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
        None => None,
    };
    let mut push = |row: Value| -> Result<()> {
        println!("{row}");
        if let Some(out) = &mut out {
            writeln!(out, "{row}")?;
        }
        Ok(())
    };
    if args.iter().any(|arg| arg == "--limits") {
        return limits::compare_all(short, value_of("--only").as_deref(), &mut push);
    }
    for (subject, bench) in size::SUBJECTS {
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["--entry-size", subject]).args(short.then_some("--short"));
        let output = child.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bytes: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
        push(json!({
            "suite": "memory", "bench": bench, "subject": subject,
            "keys": entries, "value_bytes": 64, "bytes_per_entry": bytes,
        }))?;
    }
    for _ in 0..3 {
        push(runtime()?.block_on(expiry::of_store(entries, None))?)?;
        // So many bytes that the bound is just reached.
        let bound = entries as u64 * 600;
        push(runtime()?.block_on(expiry::of_store(entries, Some(bound)))?)?;
    }
    push(runtime()?.block_on(expiry::of_moka(entries))?)?;
    scan::compare_all(entries, &mut push)?;
    load::compare_all(short, &mut push)?;
    limits::compare_all(short, None, &mut push)
}
