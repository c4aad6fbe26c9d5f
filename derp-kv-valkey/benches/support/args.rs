use std::path::PathBuf;

use anyhow::{Result, bail};

/// What the command line asks of a benchmark.
#[derive(Debug, Default)]
pub struct Args {
    /// Runs everything once and briefly: only shows that the benchmark still works.
    pub short: bool,
    /// Where the rows are appended, one JSON object a line.
    pub out: Option<PathBuf>,
    /// Only the suites whose name contains this.
    pub only: Option<String>,
}

impl Args {
    /// # Errors
    /// An argument that no benchmark knows.
    pub fn parse() -> Result<Self> {
        let mut args = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--short" => args.short = true,
                "--out" => args.out = words.next().map(PathBuf::from),
                "--only" => args.only = words.next(),
                // Cargo adds it to every benchmark.
                "--bench" => {}
                other => bail!("unknown argument {other:?}: [--short] [--out FILE] [--only SUITE]"),
            }
        }
        Ok(args)
    }

    pub fn wants(&self, suite: &str) -> bool {
        self.only.as_deref().is_none_or(|only| suite.contains(only))
    }
}
