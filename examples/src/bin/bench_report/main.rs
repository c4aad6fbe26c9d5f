//! Turns measured rows into `BENCHMARKS.md` and its plots: `bench_report ROWS.jsonl FOLDER`, or with
//! `--reach`, `--fleet` or `--limits` before them into that section only, which is printed where no folder is named.
//! `bench_report --head FOLDER` writes only the page's first screen anew, from its tables.
//!
//! A row is one JSON object a line; what was not measured is absent:
//!
//! | field | |
//! |---|---|
//! | `suite` | `clients`, `cluster`, both with `-9` on Valkey 9, `reach`, `helpers`, `fleet`, `limits`, `growth`, `memory`, `conformance` |
//! | `bench`, `subject` | what was done, and by whom |
//! | `callers`, `threads`, `value_bytes`, `keys`, `batch`, `primaries` | under which load |
//! | `ops_per_s`, `p50_us`, `p99_us`, `worst_us` | wall-clock time |
//! | `cpu_ns_per_op`, `allocs_per_op`, `instructions_per_op`, `commands_per_op`, `bytes_per_entry` | costs, of the client process |
//! | `computed` | how often a herd computed its value |
//! | `measured`, `at_most`, `at_least` | a figure of the fleet or of rate limits, and its bound |
//! | `laws`, `seconds` | how many laws of the conformance suite hold, and how long they took together |
//! | `ratio`, `cpu_ratio` | `ops_per_s` and `cpu_ns_per_op` over bare redis-rs in the same rounds |
//! | `ours_ratio`, `ours_cpu_ratio` | those of derp-kv over those of this row, likewise |
//! | `cpu_ratio_dashmap`, `cpu_ratio_moka`, `cpu_ratio_governor` | `cpu_ns_per_op` over these in the same rounds |

mod bound;
mod budgets;
mod fleet;
mod head;
mod limits;
mod plots;
mod reach;
mod rows;
mod section;
mod series;
mod slopes;
mod tables;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use rows::Rows;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).peekable();
    let usage =
        "usage: bench_report [--reach | --fleet | --limits] ROWS.jsonl FOLDER, or --head FOLDER";
    if args.next_if_eq("--head").is_some() {
        return head::write(&PathBuf::from(args.next().context(usage)?));
    }
    let sections = ["--reach", "--fleet", "--limits"];
    if let Some(only) = args.next_if(|arg| sections.contains(&arg.as_str())) {
        let rows = Rows::read(&PathBuf::from(args.next().context(usage)?))?;
        let (title, section, before) = match only.as_str() {
            "--reach" => (reach::TITLE, reach::section(&rows), reach::BEFORE),
            "--fleet" => (fleet::TITLE, fleet::section(&rows), fleet::BEFORE),
            _ => (limits::TITLE, limits::section(&rows), limits::BEFORE),
        };
        return section_only(title, &section, before, args.next().map(PathBuf::from));
    }
    let rows = Rows::read(&PathBuf::from(args.next().context(usage)?))?;
    let folder = PathBuf::from(args.next().context(usage)?);
    let plots = folder.join("docs/bench");
    std::fs::create_dir_all(&plots)?;

    let mut page = String::new();
    writeln!(page, "# Benchmarks\n")?;
    writeln!(
        page,
        "`scripts/bench.sh` has measured what is here and written this page, except where a table compares \"before\" \
         with\n\"after\": that was measured once, by the command that stands there.\n"
    )?;
    writeln!(page, "## How it was measured\n\n{}\n", machine())?;
    writeln!(
        page,
        "Server and clients share the cores, and other work may have run beside them: the times \
         are of this machine and this hour. The ratios hold better: the subjects take turns in \
         rounds of a tenth of a second, each is compared with the other in the same round, and \
         the median of the rounds is shown, of 7 rounds, and of 61 (reach and in memory 31) where a row \
         has a bound of throughput or processor time to keep. Processor time and allocations are \
         the client process's own.\n"
    )?;
    page += &reach::section(&rows);
    writeln!(page, "## Budgets\n\n{}", budgets::table(&rows))?;
    if let Ok(notes) = std::fs::read_to_string(plots.join("notes.md")) {
        writeln!(page, "{notes}")?;
    }
    page += &tables::clients(&rows, "clients", "One server");
    page += &tables::clients(&rows, "cluster", "A cluster of three primaries");
    page += &tables::clients(&rows, "clients-9", &format!("One {}", valkey("VALKEY_9_SERVER")));
    page += &tables::clients(&rows, "cluster-9", "A cluster of three primaries of the same");
    page += &tables::helpers(&rows);
    page += &fleet::section(&rows);
    page += &limits::section(&rows);
    page += &tables::growth(&rows);
    page += &slopes::table(&rows);
    for (file, title) in plots::draw(&rows, &plots)? {
        writeln!(page, "![{title}](docs/bench/{file})\n")?;
    }
    page += &tables::memory(&rows);
    page += &tables::suites(&rows);
    // Measured by programs of their own, which the page names.
    if let Ok(herds) = std::fs::read_to_string(plots.join("herds.md")) {
        page += &format!("\n{herds}");
    }
    std::fs::write(folder.join("BENCHMARKS.md"), page.trim_end().to_owned() + "\n")?;
    head::write(&folder)
}

/// One section alone: on the standard output, or in its place in the folder's page.
fn section_only(title: &str, section: &str, before: &str, folder: Option<PathBuf>) -> Result<()> {
    let Some(folder) = folder else {
        print!("{section}");
        return Ok(());
    };
    let page = folder.join("BENCHMARKS.md");
    let old = std::fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    std::fs::write(page, section::replace(&old, title, section, before))?;
    head::write(&folder)
}

/// Processor, system and versions.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':']));
    let lock = include_str!("../../../../Cargo.lock");
    let version = |name: &str| {
        let at = lock.find(&format!("name = \"{name}\"\n"));
        let version = at.and_then(|at| lock[at..].lines().nth(1));
        let version = version.and_then(|line| line.split('"').nth(1)).unwrap_or("?");
        format!("{name} {version}")
    };
    let clients = [
        "redis",
        "fred",
        "rustis",
        "tokio",
        "moka",
        "dashmap",
        "quick_cache",
        "foyer-memory",
        "governor",
    ];
    format!(
        "Machine: {cores} cores of {model}, {}. Versions: {}, {}, {}.",
        said_by("uname", &["-sr"]),
        said_by("rustc", &["--version"]),
        valkey("VALKEY_SERVER"),
        clients.map(version).join(", "),
    )
}

/// The version of the server that a variable names.
fn valkey(variable: &str) -> String {
    let server = std::env::var(variable).unwrap_or_else(|_| "valkey-server".to_owned());
    said_by(&server, &["--version"]).split(" sha=").next().unwrap_or_default().to_owned()
}

fn said_by(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(_) => format!("{program} unknown"),
    }
}
