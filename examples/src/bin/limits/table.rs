//! The table, and its place in the page.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::search::{Found, WINDOWS};
use crate::subject::Subject;

const BEGIN: &str = "<!-- bounds:begin -->\n";
const END: &str = "<!-- bounds:end -->";

pub(crate) fn table(subjects: &[Subject], found: &Found, steady: &[[f64; 2]]) -> String {
    let mut table = "| limit | in any window: bound | found | in any 1/20 of it: bound | found | \
                     steady callers at the limit's rate get | up to twice as fast |\n|---|---|---|---|---|---|---|\n"
        .to_owned();
    for ((subject, worst), steady) in subjects.iter().zip(&found.each).zip(steady) {
        let _ = write!(table, "| {} |", subject.name);
        for (window, most) in WINDOWS.into_iter().zip(worst.most) {
            let most = if subject.searched { most.to_string() } else { "-".to_owned() };
            let _ = write!(table, " {} | {most} |", (subject.at_most)(window));
        }
        let _ = writeln!(table, " {:.3} | {:.3} |", steady[0], steady[1]);
    }
    table
}

/// What is promised and was not kept.
pub(crate) fn broken(subjects: &[Subject], found: &Found, steady: &[[f64; 2]]) -> Vec<String> {
    let mut broken = Vec::new();
    for ((subject, worst), steady) in subjects.iter().zip(&found.each).zip(steady) {
        for (window, most) in WINDOWS.into_iter().zip(worst.most) {
            if most > (subject.at_most)(window) {
                broken.push(format!("{}: {most} in {window} ns", subject.name));
            }
        }
        if steady.iter().any(|share| subject.steady.is_some_and(|least| *share < least)) {
            broken.push(format!("{}: steady callers get {steady:?}", subject.name));
        }
    }
    broken
}

pub(crate) fn write(path: &Path, table: &str) -> Result<()> {
    let page = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (head, rest) = page.split_once(BEGIN).context("the page has no place for the table")?;
    let (_, tail) = rest.split_once(END).context("the place for the table has no end")?;
    std::fs::write(path, format!("{head}{BEGIN}\n{table}\n{END}{tail}"))?;
    Ok(())
}
