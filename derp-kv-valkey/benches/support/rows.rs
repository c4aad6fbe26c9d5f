use std::fs::{File, OpenOptions};
use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::Args;

/// One measured row; what was not measured is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    pub suite: &'static str,
    pub bench: String,
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primaries: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops_per_s: Option<f64>,
    /// Of the client process, user and system time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ns_per_op: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocs_per_op: Option<f64>,
    /// Of all threads in user space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_per_op: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands_per_op: Option<f64>,
    /// How often the value was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub computed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// `ops_per_s` over that of the first subject, the median of the pairs of rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// `cpu_ns_per_op` over that of the first subject, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ratio: Option<f64>,
    /// This project's `ops_per_s` over that of this subject, the median of the pairs of rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_ratio: Option<f64>,
    /// This project's `cpu_ns_per_op` over that of this subject, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_cpu_ratio: Option<f64>,
}

/// Prints rows, and appends them to the file of `--out`.
#[derive(Debug)]
pub struct Rows(Option<File>);

impl Rows {
    /// # Errors
    /// The file cannot be opened.
    pub fn new(args: &Args) -> Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        let file = args.out.as_ref().map(open).transpose();
        Ok(Self(file.context("the file of --out")?))
    }

    /// # Errors
    /// The file cannot be written.
    pub fn push(&mut self, row: &Row) -> Result<()> {
        println!("{}", serde_json::to_string(row)?);
        self.append(row)
    }

    /// Appends a row of any kind, and prints nothing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, row: &impl Serialize) -> Result<()> {
        if let Some(file) = &mut self.0 {
            writeln!(file, "{}", serde_json::to_string(row)?)?;
        }
        Ok(())
    }
}
