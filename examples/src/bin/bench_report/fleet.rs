//! What a fleet of processes that refresh one value was measured to do, and its bounds.

use std::fmt::Write as _;

use crate::bound::Bound::{self, AtLeast, AtMost};
use crate::bound::verdict;
use crate::rows::{Row, Rows, shown};

pub(crate) const TITLE: &str = "## Refreshes in a fleet";
/// The section before which it stands where the page has none yet.
pub(crate) const BEFORE: &str = "## How the cost grows";

/// The section of the page, where anything of it was measured.
pub(crate) fn section(rows: &Rows) -> String {
    let mut fleet = rows.suite("fleet").peekable();
    if fleet.peek().is_none() {
        return String::new();
    }
    let mut text = format!(
        "{TITLE}\n\n\
         `scripts/bench.sh fleet` repeats this table in about two minutes, and fails where a count breaks its \
         bound. `Cache` with `stale`, on one Valkey server. In the first two scenarios two processes ask for \
         one value at a steady rate; in the third two survivors do, after a third process was killed; in \
         the fourth one process refreshes and another invalidates. Whoever \"waited\" computed, or waited for \
         somebody who did. The ratio of the p99s is taken in each cycle, and its median is shown. The times \
         hold on a machine that has room for this load.\n\n\
         | what happens | measured | figure | bound | verdict |\n\
         |---|---|---|---|---|\n"
    );
    for row in fleet {
        text += &line(row);
    }
    text + "\n"
}

/// A row of a table of figures and their bounds.
pub(crate) fn line(row: &Row) -> String {
    let measured = row.number("measured");
    let most = row.number("at_most").map(AtMost);
    let bound: Option<Bound> = most.or_else(|| row.number("at_least").map(AtLeast));
    let figure = match measured {
        Some(count) if count.fract() == 0.0 && count < 1_000.0 => count.to_string(),
        measured => shown(measured),
    };
    let mut text = format!("| {} | {} | {figure} |", row.text("bench"), row.text("subject"));
    let _ = match bound {
        None => writeln!(text, " - | - |"),
        Some(bound) => {
            let kept = verdict([measured.map(|measured| bound.holds(measured))]);
            writeln!(text, " {} | {kept} |", bound.shown(""))
        }
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_bound_and_whether_it_was_kept() {
        let row = |rest: &str| {
            let row =
                format!(r#"{{"suite":"fleet","bench":"crash","subject":"successors",{rest}}}"#);
            section(&Rows::parse(&row).unwrap()).trim_end().lines().last().unwrap().to_owned()
        };
        assert_eq!(row(r#""measured":1,"at_most":1"#), "| crash | successors | 1 | ≤ 1 | kept |");
        assert_eq!(
            row(r#""measured":2,"at_most":1"#),
            "| crash | successors | 2 | ≤ 1 | **missed** |"
        );
        assert_eq!(
            row(r#""measured":1000,"at_least":1000"#),
            "| crash | successors | 1,000 | ≥ 1000 | kept |"
        );
        assert_eq!(row(r#""measured":0.5"#), "| crash | successors | 0.50 | - | - |");
    }
}
