use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

const COUNTED: [&str; 2] = ["allocs_per_op", "instructions_per_op"];

/// One measured row.
#[derive(Clone, Debug)]
pub(crate) struct Row(Value);

impl Row {
    pub(crate) fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    pub(crate) fn number(&self, field: &str) -> Option<f64> {
        self.0[field].as_f64()
    }

    /// Whether it is of this bench, by this subject.
    pub(crate) fn is(&self, bench: &str, subject: &str) -> bool {
        self.text("bench") == bench && self.text("subject") == subject
    }

    /// Whether it was measured under the same load.
    pub(crate) fn same_load(&self, other: &Self) -> bool {
        ["suite", "bench", "subject", "callers", "value_bytes"]
            .iter()
            .all(|field| self.0[field] == other.0[field])
    }
}

/// All rows, in the order of their measurement.
#[derive(Debug)]
pub(crate) struct Rows(Vec<Row>);

impl Rows {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let rows = text.lines().enumerate().map(|(nth, line)| {
            let row = serde_json::from_str(line);
            row.map(Row).with_context(|| format!("line {} of the rows", nth + 1))
        });
        Ok(Self(rows.collect::<Result<_>>()?))
    }

    /// The rows of `suite` that were timed; what is counted is in rows of its own.
    pub(crate) fn suite<'a>(&'a self, suite: &'a str) -> impl Iterator<Item = &'a Row> {
        let timed = |row: &&Row| COUNTED.iter().all(|field| row.number(field).is_none());
        self.0.iter().filter(move |row| row.text("suite") == suite).filter(timed)
    }

    pub(crate) fn allocations(&self, of: &Row) -> Option<f64> {
        self.counted("allocs_per_op", of)
    }

    /// What was counted in a run of its own, under the load of `of`.
    pub(crate) fn counted(&self, field: &str, of: &Row) -> Option<f64> {
        self.0.iter().filter(|row| row.same_load(of)).find_map(|row| row.number(field))
    }
}

/// A number for people: three digits, thousands apart.
pub(crate) fn shown(number: Option<f64>) -> String {
    match number {
        None => "-".to_owned(),
        Some(number) if number >= 1000.0 => {
            let digits = format!("{number:.0}");
            let mut text = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at) % 3 == 0 {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        Some(number) if number >= 100.0 => format!("{number:.0}"),
        Some(number) if number >= 10.0 => format!("{number:.1}"),
        Some(number) => format!("{number:.2}"),
    }
}
