//! How far the project reaches beside other clients, and the bounds that it has set itself there.

use crate::bound::Bound::{self, AtLeast, AtMost};
use crate::bound::verdict;
use crate::rows::{Row, Rows, shown};
use crate::tables;

pub(crate) const TITLE: &str = "## Reach";
/// The section before which it stands where the page has none yet.
pub(crate) const BEFORE: &str = "## Budgets";
const OURS: &str = "derp-kv";
/// The same as a trait object.
const DYNAMIC: &str = "derp-kv, dyn";
const PEERS: [&str; 3] = ["redis-rs", "rustis", "fred"];

/// What a line compares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Figure {
    Throughput,
    Cpu,
}

/// With whom.
#[derive(Clone, Copy)]
enum Over {
    Peer(&'static str),
    /// The one that leaves us the worst ratio.
    Best,
}

struct Line {
    bench: &'static str,
    value_bytes: Option<u32>,
    callers: u32,
    figure: Figure,
    bounds: &'static [(Over, Bound)],
}

const REDIS_RS: Over = Over::Peer(PEERS[0]);
const RUSTIS: Over = Over::Peer(PEERS[1]);

type Bounds = &'static [(Over, Bound)];
const SMALL_GET: Bounds = &[(REDIS_RS, AtLeast(1.6)), (RUSTIS, AtLeast(1.3))];
const SMALL_GET_CPU: Bounds = &[(REDIS_RS, AtMost(0.6))];
const LARGE_GET: Bounds = &[(REDIS_RS, AtLeast(1.4)), (Over::Best, AtLeast(1.2))];
const WRITE: Bounds = &[(Over::Best, AtLeast(1.2))];
const MGET: Bounds = &[(Over::Best, AtLeast(1.1))];
const MGET_CPU: Bounds = &[(REDIS_RS, AtMost(0.5))];
const CLUSTER_GET: Bounds = &[(REDIS_RS, AtLeast(3.0))];
const LONE_GET: Bounds = &[(REDIS_RS, AtLeast(0.85))];
/// Allocations of a `get` through `Arc<dyn KvStore>`.
const ALLOCATIONS: Bound = AtMost(3.0);

/// Callers, value bytes, and the bounds of throughput and of processor time.
type Case = (&'static str, Option<u32>, u32, Bounds, Bounds);
const CASES: [Case; 14] = [
    ("get", Some(64), 1, LONE_GET, &[]),
    ("get", Some(64), 64, SMALL_GET, SMALL_GET_CPU),
    ("get", Some(64), 512, SMALL_GET, SMALL_GET_CPU),
    ("get", Some(4096), 64, LARGE_GET, &[]),
    ("get", Some(4096), 512, LARGE_GET, &[]),
    ("set with TTL", Some(64), 64, WRITE, &[]),
    ("set with TTL", Some(64), 512, WRITE, &[]),
    ("incr, the same script", None, 64, WRITE, &[]),
    ("incr, the same script", None, 512, WRITE, &[]),
    ("rate_limit, the same script", None, 64, WRITE, &[]),
    ("rate_limit, the same script", None, 512, WRITE, &[]),
    ("mget of 100", Some(64), 64, MGET, MGET_CPU),
    ("mget of 100", Some(4096), 64, MGET, MGET_CPU),
    ("get, cluster", Some(64), 64, CLUSTER_GET, &[]),
];

/// What a profile of the rows with 64 callers has shown.
const WAKING: &str = "What a round trip of one caller takes is, on a machine whose processors fall \
    asleep, mostly the waking of threads. The rows of 64 callers are decided by it as well: a \
    profile shows both cores together at about 0.7 of one there. A connection on a thread of its \
    own needs one wake-up more for each batch than one that lives among its callers; with 512 \
    callers that is spread over more of them.";

/// The section of the page, where anything of it was measured.
pub(crate) fn section(rows: &Rows) -> String {
    if rows.suite("reach").next().is_none() {
        return String::new();
    }
    let mut text = format!(
        "{TITLE}\n\n\
         `scripts/bench.sh reach` repeats this table in some minutes. All clients run on a runtime \
         of two workers and take turns in rounds of a tenth of a second; the ratios are medians of \
         those within each of 31 rounds. The best peer is the one that leaves the worst ratio. In \
         the cluster redis-rs is its `ClusterConnection`. Processor time is that of the whole \
         client process.\n\n\
         {WAKING}\n\n\
         | what | callers | derp-kv | `Arc<dyn KvStore>` | redis-rs | rustis | fred \
         | over redis-rs | over rustis | over the best | bound | verdict |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n"
    );
    for (bench, value_bytes, callers, throughput, cpu) in CASES {
        for (figure, bounds) in [(Figure::Throughput, throughput), (Figure::Cpu, cpu)] {
            if !bounds.is_empty() {
                text += &Line { bench, value_bytes, callers, figure, bounds }.shown(rows);
            }
        }
    }
    for (what, field, bound) in [
        ("allocations", "allocs_per_op", Some(ALLOCATIONS)),
        ("instructions", "instructions_per_op", None),
    ] {
        for callers in [1, 64] {
            text += &counted(rows, what, field, bound, callers);
        }
    }
    text += "\n";
    text += &glide(rows);
    text += &tables::clients(rows, "reach", "Reach: all figures").replace("## ", "### ");
    text
}

impl Figure {
    fn field(self) -> &'static str {
        match self {
            Self::Throughput => "ops_per_s",
            Self::Cpu => "cpu_ns_per_op",
        }
    }

    fn ratio_field(self) -> &'static str {
        match self {
            Self::Throughput => "ours_ratio",
            Self::Cpu => "ours_cpu_ratio",
        }
    }

    fn worse(self) -> fn(f64, f64) -> f64 {
        match self {
            Self::Throughput => f64::min,
            Self::Cpu => f64::max,
        }
    }
}

impl Line {
    fn row<'a>(&self, rows: &'a Rows, subject: &str) -> Option<&'a Row> {
        rows.suite("reach").find(|row| {
            row.is(self.bench, subject)
                && row.number("callers") == Some(self.callers.into())
                && row.number("value_bytes") == self.value_bytes.map(f64::from)
        })
    }

    /// Ours over theirs.
    fn ratio(&self, rows: &Rows, over: Over) -> Option<f64> {
        let of = |peer: &str| self.row(rows, peer)?.number(self.figure.ratio_field());
        match over {
            Over::Peer(peer) => of(peer),
            Over::Best => PEERS.into_iter().filter_map(of).reduce(self.figure.worse()),
        }
    }

    fn shown(&self, rows: &Rows) -> String {
        let size = self.value_bytes.map(|bytes| format!(", {bytes} B")).unwrap_or_default();
        let figure = match self.figure {
            Figure::Throughput => "operations/s",
            Figure::Cpu => "CPU, ns",
        };
        let mut text = format!("| {}{size}: {figure} | {} |", self.bench, self.callers);
        for subject in [OURS, DYNAMIC].into_iter().chain(PEERS) {
            let row = self.row(rows, subject);
            let number = row.and_then(|row| row.number(self.figure.field()));
            text += &format!(" {} |", shown(number));
        }
        for over in [REDIS_RS, RUSTIS, Over::Best] {
            text += &format!(" {} |", shown(self.ratio(rows, over)));
        }
        let bounds = self.bounds.iter().map(|(over, bound)| {
            let over = match over {
                Over::Peer(peer) => peer,
                Over::Best => "best",
            };
            format!("{} {over}", bound.shown(""))
        });
        let kept = self
            .bounds
            .iter()
            .map(|(over, bound)| self.ratio(rows, *over).map(|measured| bound.holds(measured)));
        let bounds: Vec<_> = bounds.collect();
        text + &format!(" {} | {} |\n", bounds.join(", "), verdict(kept))
    }
}

/// The line of what a `get` was counted to cost, in a run of its own.
fn counted(rows: &Rows, what: &str, field: &str, bound: Option<Bound>, callers: u32) -> String {
    let (value_bytes, figure) = (Some(64), Figure::Throughput);
    let line = Line { bench: "get", value_bytes, callers, figure, bounds: &[] };
    let of = |subject| rows.counted(field, line.row(rows, subject)?);
    let mut text = format!("| get, 64 B: {what} | {callers} |");
    for subject in [OURS, DYNAMIC].into_iter().chain(PEERS) {
        text += &format!(" {} |", shown(of(subject)));
    }
    text += " - | - | - |";
    let Some(bound) = bound else { return text + " - | - |\n" };
    let kept = of(DYNAMIC).map(|measured| bound.holds(measured));
    text + &format!(" {} `Arc<dyn KvStore>` | {} |\n", bound.shown(""), verdict([kept]))
}

/// The client of Python programs, where it was measured.
fn glide(rows: &Rows) -> String {
    let Some(row) = rows.suite("reach").find(|row| row.is("get", "GLIDE")) else {
        return String::new();
    };
    format!(
        "derp-py's client, valkey-glide in a process of its own with 64 asyncio tasks, takes {} ns \
         of processor time a `get` of 64 B and does {} a second: derp-kv takes {} of its processor \
         time.\n\n",
        shown(row.number("cpu_ns_per_op")),
        shown(row.number("ops_per_s")),
        shown(row.number("ours_cpu_ratio")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(ours_over_rustis: f64) -> Rows {
        let row = |subject: &str, ops: f64, ours: f64| {
            format!(
                r#"{{"suite":"reach","bench":"get","subject":"{subject}","callers":64,
                "value_bytes":64,"ops_per_s":{ops},"ours_ratio":{ours}}}"#
            )
            .replace('\n', "")
        };
        let lines = [
            row("derp-kv", 1700.0, 1.0),
            row("redis-rs", 1000.0, 1.7),
            row("rustis", 1200.0, ours_over_rustis),
            row("fred", 900.0, 1.9),
        ];
        Rows::parse(&lines.join("\n")).unwrap()
    }

    fn line(ours_over_rustis: f64) -> String {
        let line = Line {
            bench: "get",
            value_bytes: Some(64),
            callers: 64,
            figure: Figure::Throughput,
            bounds: SMALL_GET,
        };
        line.shown(&rows(ours_over_rustis))
    }

    #[test]
    fn all_bounds_of_a_line_are_judged() {
        let begin = "| get, 64 B: operations/s | 64 | 1,700 | - | 1,000 | 1,200 | 900 | 1.70 |";
        let bounds = "≥ 1.6 redis-rs, ≥ 1.3 rustis";
        assert_eq!(line(1.3), format!("{begin} 1.30 | 1.30 | {bounds} | kept |\n"));
        assert_eq!(line(1.29), format!("{begin} 1.29 | 1.29 | {bounds} | **missed** |\n"));
    }

    #[test]
    fn what_was_not_measured_is_not_kept() {
        let section = section(&rows(1.4));
        assert_eq!(section.matches("| kept |").count(), 1);
        assert!(section.contains("| get, 4096 B: operations/s | 512 | - |"));
        assert!(!section.contains("missed"));
    }
}
