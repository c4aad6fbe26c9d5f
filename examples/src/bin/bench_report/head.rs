//! The page's first screen: five figures beside the best peer of each. They are read from the page's own
//! tables, so that the screen says what the tables below it say, whichever of them were measured last.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::section;

const TITLE: &str = "## At a glance";
const BEGIN: &str = "<!-- measured:begin -->\n";
const END: &str = "<!-- measured:end -->";
const ABSENT: &str = "-";

/// What `Reach` calls a figure, under how many callers, and what it is called here.
const REACH: [(&str, &str, &str); 4] = [
    ("get, 64 B: operations/s", "64", "`get` of 64 B, 64 callers, operations/s"),
    ("get, 64 B: operations/s", "512", "`get` of 64 B, 512 callers, operations/s"),
    (
        "mget of 100, 64 B: operations/s",
        "64",
        "`mget` of 100 keys of 64 B, 64 callers, operations/s",
    ),
    (
        "get, cluster, 64 B: operations/s",
        "64",
        "`get` of 64 B in a cluster, 64 callers, operations/s",
    ),
];

/// The page with the screen in its place.
pub(crate) fn put(page: &str) -> String {
    section::replace(page, TITLE, &screen(page), "## ")
}

/// Writes the screen into the folder's page, and its table into the folder's README where there is one.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let file = folder.join("BENCHMARKS.md");
    let page = put(&std::fs::read_to_string(&file).with_context(|| file.display().to_string())?);
    std::fs::write(file, &page)?;
    let file = folder.join("README.md");
    if let Ok(readme) = std::fs::read_to_string(&file) {
        std::fs::write(file, put_into_readme(&readme, &page)?)?;
    }
    Ok(())
}

fn put_into_readme(readme: &str, page: &str) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).context("the README has no table to write")?;
    let (_, after) = rest.split_once(END).context("the README's table has no end")?;
    Ok([before, BEGIN, &table(page), END, after].concat())
}

fn screen(page: &str) -> String {
    format!(
        "{TITLE}\n\n{}\n\
         The best peer is the one that leaves derp-kv the worst ratio: of redis-rs, rustis and fred on a server, and \
         dashmap in memory, which has no TTL. Each ratio is the median of those within the same rounds. More \
         throughput is better, and less processor time.\n\n\
         ![callers of one hot key: client CPU per operation](docs/bench/callers.svg)\n\n\
         | to repeat | run | takes |\n\
         |---|---|---|\n\
         | everything, and write this page | `scripts/bench.sh` | about twenty minutes after the build |\n\
         | the four rows on a server | `scripts/bench.sh reach`, with `--write` into this page | some minutes |\n\
         | the row in memory | `scripts/bench.sh memory` | - |\n\n",
        table(page)
    )
}

fn table(page: &str) -> String {
    let mut text = "| what | derp-kv | best peer | ratio |\n|---|---|---|---|\n".to_owned();
    for (figure, callers, name) in REACH {
        text += &reached(page, figure, callers, name);
    }
    text += &in_memory(page);
    text
}

/// A row of `Reach`. It shows the ratio over the best peer, and by that which one it is.
fn reached(page: &str, figure: &str, callers: &str, name: &str) -> String {
    let table = Table::below(page, "## Reach");
    let row = table.row(&[("what", figure), ("callers", callers)]);
    let of = |column: &str| table.cell(row, column);
    let best = of("over the best");
    let peer = ["redis-rs", "rustis"].into_iter().find(|peer| of(&format!("over {peer}")) == best);
    let peer = peer.unwrap_or("fred");
    if best == ABSENT {
        return format!("| {name} | {ABSENT} | {ABSENT} | not measured |\n");
    }
    format!("| {name} | {} | {peer} {} | {best} of its throughput |\n", of("derp-kv"), of(peer))
}

fn in_memory(page: &str) -> String {
    let name = "in memory, 90 % `get` and 10 % `set`, 2 threads, processor time";
    let table = Table::below(page, "## In memory");
    let row = |subject| {
        table.row(&[("operation", "mixed 90/10"), ("subject", subject), ("threads", "2")])
    };
    let (ours, theirs) = (row("derp-kv unbounded"), row("dashmap"));
    let [time, other] = [ours, theirs].map(|row| table.cell(row, "CPU, ns"));
    let ratio = table.cell(ours, "over dashmap");
    if ratio == ABSENT {
        return format!("| {name} | {ABSENT} | {ABSENT} | not measured |\n");
    }
    format!("| {name} | {time} ns | dashmap {other} ns | {ratio} of its processor time |\n")
}

/// The first table below a heading.
struct Table<'a>(Vec<Vec<&'a str>>);

impl<'a> Table<'a> {
    fn below(page: &'a str, heading: &str) -> Self {
        let behind = page.split_once(&format!("\n{heading}\n")).map_or("", |(_, behind)| behind);
        let section = behind.split("\n## ").next().unwrap_or_default();
        let lines = section.lines().skip_while(|line| !line.starts_with('|'));
        let lines = lines.take_while(|line| line.starts_with('|'));
        Self(lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect())
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.0.first()?.iter().position(|title| *title == name)
    }

    /// The row that has these cells.
    fn row(&self, cells: &[(&str, &str)]) -> Option<usize> {
        let has =
            |row: usize| cells.iter().all(|(column, text)| self.cell(Some(row), column) == *text);
        (1..self.0.len()).find(|row| has(*row))
    }

    fn cell(&self, row: Option<usize>, column: &str) -> &'a str {
        let cell = || self.0.get(row?)?.get(self.column(column)?).copied();
        cell().unwrap_or(ABSENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../../BENCHMARKS.md");

    #[test]
    fn the_first_screen_says_what_the_tables_say() {
        assert!(
            put(PAGE) == PAGE,
            "run `cargo run -p derp-kv-examples --bin bench_report -- --head .`"
        );
        assert_eq!(table(PAGE).matches(" of its ").count(), 5, "{}", table(PAGE));
    }

    #[test]
    fn the_readme_says_the_same() {
        let readme = include_str!("../../../../README.md");
        assert!(put_into_readme(readme, PAGE).unwrap() == readme);
    }

    #[test]
    fn what_was_not_measured_is_named_so() {
        let page = put("# Benchmarks\n\nText.\n\n## Reach\n\nNothing.\n");
        assert_eq!(page.matches("| - | - | not measured |").count(), 5, "{page}");
        assert!(page.starts_with("# Benchmarks\n\nText.\n\n## At a glance\n"));
        assert!(page.ends_with("\n## Reach\n\nNothing.\n"));
    }

    #[test]
    fn the_best_peer_is_the_one_that_leaves_the_worst_ratio() {
        let of = |ratios: &str| {
            let page = format!(
                "\n## Reach\n\n| what | callers | derp-kv | redis-rs | rustis | fred | over redis-rs | over rustis | \
                 over the best |\n|---|---|---|---|---|---|---|---|---|\n| f | 64 | 9 | 1 | 2 | 3 | {ratios} |\n"
            );
            reached(&page, "f", "64", "name")
        };
        assert_eq!(of("1.2 | 1.1 | 1.1"), "| name | 9 | rustis 2 | 1.1 of its throughput |\n");
        assert_eq!(of("0.9 | 1.1 | 0.9"), "| name | 9 | redis-rs 1 | 0.9 of its throughput |\n");
        assert_eq!(of("1.6 | 2.2 | 1.5"), "| name | 9 | fred 3 | 1.5 of its throughput |\n");
    }
}
