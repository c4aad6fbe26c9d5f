//! The bounds of the rate limits: what the page says of them is found again.

use std::path::Path;
use std::process::Command;

/// The cells of the lines of the table of bounds.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().skip_while(|line| !line.starts_with("| limit | in any window"));
    let lines = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
    lines.map(cells).collect()
}

#[test]
fn the_page_says_what_a_short_search_finds_again() {
    let output = Command::new(env!("CARGO_BIN_EXE_limits")).arg("--short").output().unwrap();
    // It fails where a bound is broken.
    assert!(output.status.success(), "{output:?}");
    let found = rows(&String::from_utf8(output.stdout).unwrap());
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rate-limits.md");
    let told = rows(&std::fs::read_to_string(page).unwrap());
    assert_eq!(told.len(), 8);
    // The random arrivals of the long search find nothing worse than the known ones.
    assert_eq!(found, told, "`scripts/bench.sh limits --write` writes the page");
    let figure = |row: usize, cell: usize| told[row][cell].parse::<u64>().unwrap();
    for row in (0..told.len()).filter(|row| told[*row][3] != "-") {
        assert!(figure(row, 3) <= figure(row, 2) && figure(row, 5) <= figure(row, 4), "{told:?}");
    }
    assert!(figure(0, 3) >= 199, "a fixed window admits nearly twice its limit");
    assert_eq!(figure(3, 3), 100, "a strict limit is never exceeded");
}
