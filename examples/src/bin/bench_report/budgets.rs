//! The bounds that the project has set itself.

use crate::bound::{Bound, verdict};
use crate::rows::{Row, Rows, shown};

struct Budget {
    what: String,
    bound: Bound,
    measured: Option<f64>,
    unit: &'static str,
    command: &'static str,
}

const CLIENTS: &str = "scripts/bench.sh clients";
const HELPERS: &str = "scripts/bench.sh helpers";
const MEMORY: &str = "scripts/bench.sh memory";
const SUITES: &str = "scripts/bench.sh suites";

pub(crate) fn table(rows: &Rows) -> String {
    let mut table =
        "| what | bound | measured | verdict | repeat with |\n|---|---|---|---|---|\n".to_owned();
    let budgets =
        commands(rows).into_iter().chain(throughput(rows)).chain(memory(rows)).chain(suites(rows));
    for Budget { what, bound, measured, unit, command } in budgets {
        let verdict = verdict([measured.map(|measured| bound.holds(measured))]);
        let (bound, measured) = (bound.shown(unit), shown(measured));
        table += &format!("| {what} | {bound} | {measured}{unit} | {verdict} | `{command}` |\n");
    }
    table
}

fn highest<'a>(rows: impl Iterator<Item = &'a Row>, field: &str) -> Option<f64> {
    rows.filter_map(|row| row.number(field)).reduce(f64::max)
}

/// The middle one: a hypervisor that takes the core away shows in a single run.
fn middle<'a>(rows: impl Iterator<Item = &'a Row>, field: &str) -> Option<f64> {
    let mut numbers: Vec<f64> = rows.filter_map(|row| row.number(field)).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied()
}

fn commands(rows: &Rows) -> Vec<Budget> {
    let of = |bench: &'static str| rows.suite("helpers").filter(move |row| row.is(bench, "Valkey"));
    let bounds = [
        ("guarded_get hit", 1.0),
        ("idempotent_execute replay", 1.0),
        ("rate_limit", 1.0),
        ("already_processed", 1.0),
        ("guarded_get uncontended miss", 5.0),
        ("idempotent_execute first call", 5.0),
    ];
    let mut budgets: Vec<Budget> = bounds
        .into_iter()
        .map(|(bench, bound)| Budget {
            what: format!("{bench}: commands"),
            bound: Bound::AtMost(bound),
            measured: highest(of(bench), "commands_per_op"),
            unit: "",
            command: HELPERS,
        })
        .collect();
    let herd: Vec<&Row> = of("herd on a cold key, two processes").collect();
    let all = |row: &&Row| Some((row.number("commands_per_op")? * row.number("callers")?).round());
    budgets.extend([
        Budget {
            what: "2 processes of 500 callers on one cold key: computations".to_owned(),
            bound: Bound::AtMost(1.0),
            measured: highest(herd.iter().copied(), "computed"),
            unit: "",
            command: HELPERS,
        },
        Budget {
            what: "the same: all commands, one GET a caller and 80 more".to_owned(),
            bound: Bound::AtMost(1080.0),
            measured: herd.iter().filter_map(all).reduce(f64::max),
            unit: "",
            command: HELPERS,
        },
        Budget {
            what: "from the holder's fill to a waiter in another process, p99".to_owned(),
            bound: Bound::AtMost(5.0),
            measured: middle(of("a waiter in another process"), "p99_us").map(|us| us / 1e3),
            unit: " ms",
            command: HELPERS,
        },
    ]);
    budgets
}

fn throughput(rows: &Rows) -> Vec<Budget> {
    let mut budgets = Vec::new();
    for (suite, bound, against) in
        [("clients", 0.95, "bare redis-rs"), ("cluster", 1.2, "`ClusterConnection`, 3 primaries")]
    {
        for row in rows.suite(suite).filter(|row| row.is("get", "derp-kv")) {
            let (callers, bytes) = (row.number("callers"), row.number("value_bytes"));
            if let (Some(callers), Some(bytes)) = (callers, bytes)
                && callers > 1.0
            {
                budgets.push(Budget {
                    what: format!("`get`, {callers} callers, {bytes} B: throughput over {against}"),
                    bound: Bound::AtLeast(bound),
                    measured: row.number("ratio"),
                    unit: "",
                    command: CLIENTS,
                });
            }
        }
    }
    budgets
}

fn memory(rows: &Rows) -> Vec<Budget> {
    let mut budgets = Vec::new();
    for (subject, other, field, bound) in [
        ("derp-kv unbounded", "dashmap", "cpu_ratio_dashmap", 2.0),
        ("derp-kv bounded", "moka::sync", "cpu_ratio_moka", 1.3),
    ] {
        for row in rows.suite("memory").filter(|row| row.is("mixed 90/10", subject)) {
            let threads = row.number("threads").unwrap_or_default();
            budgets.push(Budget {
                what: format!(
                    "{subject}, 90 % get and 10 % set, {threads} threads: CPU over bare {other}"
                ),
                bound: Bound::AtMost(bound),
                measured: row.number(field),
                unit: "",
                command: MEMORY,
            });
        }
    }
    let of = |bench: &'static str, field: &str| {
        let rows = rows.suite("memory").filter(|row| row.is(bench, "derp-kv unbounded"));
        middle(rows, field)
    };
    budgets.extend([
        Budget {
            what: "slowest set and get after 1,000,000 entries expired together, CPU".to_owned(),
            bound: Bound::AtMost(5.0),
            measured: of("worst operation after mass expiry", "worst_us").map(|us| us / 1e3),
            unit: " ms",
            command: MEMORY,
        },
        Budget {
            what: "memory of an entry: 16-byte key, 64-byte value, TTL, unbounded".to_owned(),
            bound: Bound::AtMost(330.0),
            measured: of("resident bytes of an entry with TTL", "bytes_per_entry"),
            unit: " B",
            command: MEMORY,
        },
    ]);
    budgets
}

fn suites(rows: &Rows) -> Vec<Budget> {
    let longest = |store: &'static str| {
        let of =
            rows.suite("conformance").filter(move |row| row.text("subject").starts_with(store));
        highest(of, "seconds")
    };
    [("memory", "the in-memory store", 10.0), ("Valkey", "one Valkey server or cluster", 60.0)]
        .into_iter()
        .map(|(store, name, bound)| Budget {
            what: format!("the whole conformance suite on {name}, the longest run"),
            bound: Bound::AtMost(bound),
            measured: longest(store),
            unit: " s",
            command: SUITES,
        })
        .collect()
}
