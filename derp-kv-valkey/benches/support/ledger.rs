//! The table of what was measured, and whether the bounds were kept.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::{Args, Rows};

/// What a figure must keep to.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// Of a count: it holds on any machine.
    Count(Limit),
    /// Of a time: it holds on a machine that is fast enough.
    Time(f64),
    None,
}

#[derive(Clone, Copy, Debug)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// A row, of which `bench_report` makes a line of `BENCHMARKS.md`.
#[derive(Debug, Serialize)]
struct Row<'a> {
    suite: &'static str,
    bench: &'a str,
    subject: &'a str,
    measured: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_least: Option<f64>,
}

pub struct Ledger {
    suite: &'static str,
    rows: Rows,
    broken: bool,
}

impl Ledger {
    pub fn new(args: &Args, suite: &'static str) -> Result<Self> {
        println!("| what happens | measured | figure | bound | |\n|---|---|---|---|---|");
        Ok(Self { suite, rows: Rows::new(args)?, broken: false })
    }

    /// Notes a figure: `subject` of the scenario `bench`.
    pub fn note(&mut self, bench: &str, subject: &str, measured: f64, bound: Bound) -> Result<()> {
        let (at_most, at_least) = match bound {
            Bound::Count(Limit::AtMost(most)) | Bound::Time(most) => (Some(most), None),
            Bound::Count(Limit::AtLeast(least)) => (None, Some(least)),
            Bound::None => (None, None),
        };
        let kept = at_most.is_none_or(|most| measured <= most)
            && at_least.is_none_or(|least| measured >= least);
        self.broken |= !kept && matches!(bound, Bound::Count(_));
        let shown = match (at_most, at_least) {
            (Some(most), _) => format!("at most {most}"),
            (_, Some(least)) => format!("at least {least}"),
            _ => String::new(),
        };
        let verdict = match (kept, bound) {
            (_, Bound::None) => "",
            (true, _) => "kept",
            (false, _) => "**missed**",
        };
        let digits = if measured.fract() == 0.0 { 0 } else { 3 };
        println!("| {bench} | {subject} | {measured:.digits$} | {shown} | {verdict} |");
        self.rows.append(&Row { suite: self.suite, bench, subject, measured, at_most, at_least })
    }

    /// Notes a count that must not be more.
    pub fn at_most(
        &mut self,
        bench: &str,
        subject: &str,
        measured: usize,
        most: usize,
    ) -> Result<()> {
        let bound = Bound::Count(Limit::AtMost(most as f64));
        self.note(bench, subject, measured as f64, bound)
    }

    /// Failure where a bound of a count was broken.
    pub fn verdict(&self) -> ExitCode {
        if self.broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
