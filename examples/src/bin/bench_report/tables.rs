use std::fmt::Write as _;

use crate::rows::{Row, Rows, shown};

/// A title, and what stands below it.
type Column<'a> = (&'a str, &'a dyn Fn(&Row) -> String);

/// A table of `rows`, where there are any.
fn table<'a>(title: &str, rows: impl Iterator<Item = &'a Row>, columns: &[Column<'_>]) -> String {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    let mut text = format!("## {title}\n\n|");
    for (name, _) in columns {
        let _ = write!(text, " {name} |");
    }
    text += "\n|";
    text += &"---|".repeat(columns.len());
    text.push('\n');
    for row in rows {
        text.push('|');
        for (_, of) in columns {
            let _ = write!(text, " {} |", of(row));
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

fn whole(row: &Row, field: &str) -> String {
    row.number(field).map_or_else(|| "-".to_owned(), |number| number.to_string())
}

pub(crate) fn clients(rows: &Rows, suite: &str, title: &str) -> String {
    let text = table(
        title,
        rows.suite(suite),
        &[
            ("operation", &|row| row.text("bench").to_owned()),
            ("callers", &|row| whole(row, "callers")),
            ("value, B", &|row| whole(row, "value_bytes")),
            ("client", &|row| row.text("subject").to_owned()),
            ("operations/s", &|row| shown(row.number("ops_per_s"))),
            ("over redis-rs", &|row| shown(row.number("ratio"))),
            ("CPU, ns", &|row| shown(row.number("cpu_ns_per_op"))),
            ("CPU over redis-rs", &|row| shown(row.number("cpu_ratio"))),
            ("allocations", &|row| shown(rows.allocations(row))),
            ("p50, µs", &|row| shown(row.number("p50_us"))),
            ("p99, µs", &|row| shown(row.number("p99_us"))),
        ],
    );
    let note = "`incr` also tells the expiry, so it runs a script where the others send `INCR`. \
                Beside `rate_limit` the others run a script of the documentation's fixed window, \
                beside `guarded_get` they send a plain `GET`. Allocations are counted in a run of \
                their own. `fred` does not split a batch over the slots of a cluster.\n\n";
    if suite == "clients" { text + note } else { text }
}

pub(crate) fn helpers(rows: &Rows) -> String {
    table(
        "Helpers",
        rows.suite("helpers"),
        &[
            ("helper", &|row| row.text("bench").to_owned()),
            ("store", &|row| row.text("subject").to_owned()),
            ("callers", &|row| whole(row, "callers")),
            ("commands a call", &|row| shown(row.number("commands_per_op"))),
            ("CPU a call, ns", &|row| shown(row.number("cpu_ns_per_op"))),
            ("p50, µs", &|row| shown(row.number("p50_us"))),
            ("p99, µs", &|row| shown(row.number("p99_us"))),
        ],
    )
}

pub(crate) fn suites(rows: &Rows) -> String {
    table(
        "The conformance suite",
        rows.suite("conformance"),
        &[
            ("store", &|row| format!("`{}`", row.text("subject"))),
            ("laws", &|row| whole(row, "laws")),
            ("seconds", &|row| shown(row.number("seconds"))),
        ],
    )
}

pub(crate) fn growth(rows: &Rows) -> String {
    table(
        "How the cost grows",
        rows.suite("growth"),
        &[
            ("series", &|row| row.text("bench").to_owned()),
            ("callers", &|row| whole(row, "callers")),
            ("keys", &|row| whole(row, "keys")),
            ("batch", &|row| whole(row, "batch")),
            ("primaries", &|row| whole(row, "primaries")),
            ("client", &|row| row.text("subject").to_owned()),
            ("operations/s", &|row| shown(row.number("ops_per_s"))),
            ("over redis-rs", &|row| shown(row.number("ratio"))),
            ("CPU, ns", &|row| shown(row.number("cpu_ns_per_op"))),
            ("p99, µs", &|row| shown(row.number("p99_us"))),
        ],
    )
}

pub(crate) fn memory(rows: &Rows) -> String {
    table(
        "In memory",
        rows.suite("memory"),
        &[
            ("operation", &|row| row.text("bench").to_owned()),
            ("subject", &|row| row.text("subject").to_owned()),
            ("threads", &|row| whole(row, "threads")),
            ("keys", &|row| whole(row, "keys")),
            ("CPU, ns", &|row| shown(row.number("cpu_ns_per_op"))),
            ("over dashmap", &|row| shown(row.number("cpu_ratio_dashmap"))),
            ("over moka", &|row| shown(row.number("cpu_ratio_moka"))),
            ("over governor", &|row| shown(row.number("cpu_ratio_governor"))),
            ("bytes an entry", &|row| shown(row.number("bytes_per_entry"))),
            ("p50, µs", &|row| shown(row.number("p50_us"))),
            ("worst, µs", &|row| shown(row.number("worst_us"))),
        ],
    )
}
