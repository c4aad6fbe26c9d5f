//! Every law catches at least one plausible broken store, and `MUTANTS.md` lists them.

mod mutants {
    pub(crate) mod broken;
    pub(crate) mod defect;
    pub(crate) mod line;

    mod basics;
    mod batch;
    mod cache;
    mod clock;
    mod clones;
    mod concurrency;
    mod conditional;
    mod connection;
    mod counter;
    mod errors;
    mod expiry;
    mod faults;
    mod handles;
    mod helpers;
    mod herd;
    mod leftovers;
    pub(crate) mod odd;
    mod prefix;
    mod renewals;
    mod scan;
    mod step;
    mod sweeps;
    mod wait;

    pub(crate) fn all() -> Vec<broken::Mutant> {
        [
            basics::mutants(),
            batch::mutants(),
            conditional::mutants(),
            expiry::mutants(),
            clock::mutants(),
            renewals::mutants(),
            leftovers::mutants(),
            sweeps::mutants(),
            handles::mutants(),
            counter::mutants(),
            scan::mutants(),
            concurrency::mutants(),
            connection::mutants(),
            errors::mutants(),
            prefix::mutants(),
            wait::mutants(),
            step::mutants(),
            helpers::mutants(),
            cache::mutants(),
            herd::mutants(),
            clones::mutants(),
            faults::mutants(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use derp_kv_conformance::{LAWS, LawReport, Verdict};
use mutants::broken::{Mutant, mutant};
use mutants::defect::Honest;
use mutants::odd::{NoQuirk, Odd};

/// Runs all at once as far as the machine allows: many of them only wait.
fn run(mutants: &[Mutant]) -> Vec<LawReport> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let Some(mutant) = mutants.get(number) else { return };
                    let report = mutant.run();
                    reports.lock().unwrap().push((number, report));
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap();
    reports.sort_by_key(|(number, _)| *number);
    reports.into_iter().map(|(_, report)| report).collect()
}

/// How often each mutant runs for `MUTANTS.md`.
const RUNS: u32 = 20;

/// Of how many mutants how many runs were fatal.
struct Kills {
    runs: u32,
    of: Vec<u32>,
    survived: String,
}

/// Runs all mutants so often, and prints what each law saw.
fn kill(mutants: &[Mutant], runs: u32) -> Kills {
    let mut kills = Kills { runs, of: vec![0; mutants.len()], survived: String::new() };
    for number in 1..=runs {
        for (at, report) in run(mutants).into_iter().enumerate() {
            let Mutant { name, wrong, .. } = mutants[at];
            let law = report.law.id;
            if let Verdict::Violated { observed, .. } = &report.verdict {
                println!("{:.2?} `{name}` killed by `{law}`: {observed}", report.time);
                kills.of[at] += 1;
            } else {
                let survivor = format!("run {number}: `{name}` survives `{law}`: {wrong}");
                writeln!(kills.survived, "{survivor}").unwrap();
            }
        }
    }
    kills
}

/// What `MUTANTS.md` says.
fn table(mutants: &[Mutant], kills: &Kills) -> String {
    let runs = kills.runs;
    let mut table = format!(
        "# Mutants\n\n\
         Each row is a store that is right but for one defect, the law that catches it, and how often \
         it\ndid in {runs} runs, with the default number of cases and rounds. The suite's own \
         test runs every\nlaw on its mutants; it fails where one survives, and where a law has \
         none.\n\n\
         **Killed in each of {runs} runs: {killed} of {all} mutants. Every one of the {laws} laws \
         kills at least one.**\n\n\
         <!-- Generated: {UPDATE} -->\n\n\
         | area | law | mutant | killed | what is broken |\n|---|---|---|---|---|\n",
        killed = kills.of.iter().filter(|kills| **kills == runs).count(),
        all = mutants.len(),
        laws = LAWS.len(),
    );
    for law in LAWS {
        let name_of_law = law.id.rsplit("::").next().unwrap_or(law.id);
        for (mutant, killed) in mutants.iter().zip(&kills.of) {
            let Mutant { name, wrong, .. } = mutant;
            if mutant.law == law {
                writeln!(
                    table,
                    "| {} | `{name_of_law}` | `{name}` | {killed} of {runs} | {wrong} |",
                    law.area
                )
                .unwrap();
            }
        }
    }
    table
}

const UPDATE: &str = "UPDATE_MUTANTS=1 cargo test -p derp-kv-conformance --test mutants";

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("MUTANTS.md")
}

/// `MUTANTS` chooses some of them by a part of the law's or the mutant's name, and `MUTANT_RUNS`
/// says how often they run.
#[test]
fn every_mutant_is_killed_and_every_law_kills_one() {
    let mut mutants = mutants::all();
    let chosen = std::env::var("MUTANTS").unwrap_or_default();
    mutants.retain(|mutant| mutant.law.id.contains(&chosen) || mutant.name.contains(&chosen));
    let update = chosen.is_empty() && std::env::var_os("UPDATE_MUTANTS").is_some();
    let asked = std::env::var("MUTANT_RUNS").map_or(1, |runs| runs.parse().expect("a number"));
    let kills = kill(&mutants, if update { RUNS } else { asked });
    if update {
        std::fs::write(file(), table(&mutants, &kills)).expect("MUTANTS.md can be written");
    }
    assert!(kills.survived.is_empty(), "\n{}", kills.survived);
    if chosen.is_empty() {
        let killing: BTreeSet<_> = mutants.iter().map(|mutant| mutant.law.id).collect();
        let idle: Vec<_> =
            LAWS.iter().map(|law| law.id).filter(|id| !killing.contains(id)).collect();
        assert!(idle.is_empty(), "no mutant shows that these laws catch anything: {idle:?}");
    }
}

#[test]
fn the_table_of_mutants_is_up_to_date() {
    if std::env::var_os("UPDATE_MUTANTS").is_some() {
        // The other test is writing it.
        return;
    }
    let mutants = mutants::all();
    assert!(mutants.len() >= 240, "there are {} mutants", mutants.len());
    for Mutant { name, wrong, .. } in &mutants {
        let is_a_line = wrong.len() > 10 && !wrong.contains(['\n', '|']);
        assert!(is_a_line, "`{name}` does not say in a line what is broken: {wrong:?}");
    }
    let all = Kills { runs: RUNS, of: vec![RUNS; mutants.len()], survived: String::new() };
    let written = std::fs::read_to_string(file()).unwrap_or_default();
    assert!(written == table(&mutants, &all), "MUTANTS.md is not up to date; run `{UPDATE}`");
}

#[test]
fn without_a_defect_every_law_holds() {
    let controls: Vec<_> = LAWS.iter().map(|law| mutant::<Honest>(law.id, "none")).collect();
    for report in run(&controls) {
        assert!(report.is_success(), "{report}");
    }
}

#[test]
fn without_a_quirk_the_odd_store_keeps_time() {
    let timed = ["basics", "conditional", "counter", "expiry"];
    let laws = LAWS.iter().filter(|law| timed.contains(&law.area));
    let controls: Vec<_> = laws.map(|law| mutant::<Odd<NoQuirk>>(law.id, "none")).collect();
    for report in run(&controls) {
        assert!(report.is_success(), "{report}");
    }
}
