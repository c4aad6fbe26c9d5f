//! What rate limits admitted on a server in real time, and their bounds.

use crate::fleet::line;
use crate::rows::Rows;

pub(crate) const TITLE: &str = "## Rate limits";
/// The section before which it stands where the page has none yet.
pub(crate) const BEFORE: &str = "## How the cost grows";

/// The section of the page, where anything of it was measured.
pub(crate) fn section(rows: &Rows) -> String {
    let mut limits = rows.suite("limits").peekable();
    if limits.peek().is_none() {
        return String::new();
    }
    let mut text = format!(
        "{TITLE}\n\n\
         `scripts/bench.sh limits` repeats this table, and fails where a bound is broken. 64 callers ask for \
         eight ids on one server, each for a random time and pausing for a random time. A call is certainly in \
         a window if it was both sent and answered in it, so that a bound is found broken only where it is. \
         The worst arrivals, in virtual time, are in [docs/rate-limits.md](docs/rate-limits.md).\n\n\
         | what happens | measured | figure | bound | verdict |\n\
         |---|---|---|---|---|\n"
    );
    for row in limits {
        text += &line(row);
    }
    text + "\n"
}
