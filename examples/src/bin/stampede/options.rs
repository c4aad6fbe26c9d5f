//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::work::Work;

const USAGE: &str = "usage: stampede [--scenario herd|outage] [--config derp.toml] [--callers 500] \
                     [--outage 10] [--write PICTURE.svg]";

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Many callers of one cold key.
    Herd,
    /// A steady load on one hot key, while the database is down for a while.
    Outage,
}

pub(crate) struct Options {
    pub(crate) scenario: Scenario,
    pub(crate) config: Option<PathBuf>,
    /// Of the herd, in each process.
    pub(crate) callers: usize,
    /// How long the outage lasts.
    pub(crate) outage: Duration,
    /// Where the picture goes, if there is to be one.
    pub(crate) write: Option<PathBuf>,
    /// Set in the processes that this one starts.
    pub(crate) worker: Option<Work>,
}

impl Options {
    pub(crate) fn parse() -> Result<Self> {
        let mut options = Self {
            scenario: Scenario::Herd,
            config: None,
            callers: 500,
            outage: Duration::from_secs(10),
            write: None,
            worker: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let value = args.next().context(USAGE)?;
            match arg.as_str() {
                "--scenario" => {
                    options.scenario = match value.as_str() {
                        "herd" => Scenario::Herd,
                        "outage" => Scenario::Outage,
                        _ => bail!("--scenario: must be herd or outage"),
                    }
                }
                "--config" => options.config = Some(value.into()),
                "--callers" => {
                    options.callers = value.parse().context("--callers: not a number")?
                }
                "--outage" => {
                    let seconds: u64 =
                        value.parse().context("--outage: not a number of seconds")?;
                    ensure!((1..=3600).contains(&seconds), "--outage: must be from 1 to 3600 s");
                    options.outage = Duration::from_secs(seconds);
                }
                "--write" => options.write = Some(value.into()),
                "--worker" => options.worker = Some(serde_json::from_str(&value)?),
                _ => bail!(USAGE),
            }
        }
        Ok(options)
    }
}

/// A number that no other run has: process ids come again, in a container each time.
pub(crate) fn run_number() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
