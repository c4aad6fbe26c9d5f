use std::path::PathBuf;

use anyhow::{Result, bail};

/// What the command line asks of a benchmark.
#[derive(Debug, Default)]
pub struct Args {
    /// Runs everything once and briefly: only shows that the benchmark still works.
    pub short: bool,
    /// Where the rows are appended, one JSON object a line.
    pub out: Option<PathBuf>,
    /// Only the benchmarks whose name contains this.
    pub only: Option<String>,
    /// Rounds of each subject.
    pub rounds: Option<usize>,
    /// Only these subjects, named with commas between; ratios are over the first that is left.
    pub subject: Option<String>,
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
                "--rounds" => args.rounds = words.next().map(|word| word.parse()).transpose()?,
                "--subject" => args.subject = words.next(),
                // Cargo adds it to every benchmark.
                "--bench" => {}
                other => bail!(
                    "unknown argument {other:?}: [--short] [--out FILE] [--only NAME] [--rounds N] [--subject NAME,..]"
                ),
            }
        }
        Ok(args)
    }

    /// Whether `name` is to be measured.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
    }

    /// Whether `subject` is to be measured.
    pub fn wants_subject(&self, subject: &str) -> bool {
        self.subject.as_deref().is_none_or(|only| only.split(',').any(|only| only == subject))
    }
}
