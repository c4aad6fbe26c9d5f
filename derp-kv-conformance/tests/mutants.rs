//! Every law catches at least one plausible broken store, and `MUTANTS.md` lists them.

mod mutants {
    pub(crate) mod broken;
    pub(crate) mod defect;

    mod basics;
    mod batch;
    mod concurrency;
    mod conditional;
    mod counter;
    mod errors;
    mod expiry;
    mod faults;
    mod helpers;
    mod herd;
    mod prefix;
    mod scan;
    mod wait;

    pub(crate) fn all() -> Vec<broken::Mutant> {
        [
            basics::mutants(),
            batch::mutants(),
            conditional::mutants(),
            expiry::mutants(),
            counter::mutants(),
            scan::mutants(),
            concurrency::mutants(),
            errors::mutants(),
            prefix::mutants(),
            wait::mutants(),
            helpers::mutants(),
            herd::mutants(),
            faults::mutants(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use derp_kv_conformance::{LAWS, LawReport, Verdict};
use mutants::broken::{Mutant, mutant};
use mutants::defect::Honest;

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

/// What `MUTANTS.md` says where every mutant is killed.
fn table(mutants: &[Mutant]) -> String {
    let mut table = format!(
        "# Mutants\n\n\
         Each row is a store that is right but for one defect, and the law that catches it.\n\
         The suite's own test runs every law on its mutants; it fails where one survives, and\n\
         where a law has none.\n\n\
         **Killed: {killed} of {killed} mutants. Every one of the {laws} laws kills at least \
         one.**\n\n\
         <!-- Generated: {UPDATE} -->\n\n\
         | area | law | mutant | what is broken |\n|---|---|---|---|\n",
        killed = mutants.len(),
        laws = LAWS.len(),
    );
    for law in LAWS {
        for Mutant { name, wrong, .. } in mutants.iter().filter(|mutant| mutant.law == law) {
            let name_of_law = law.id.rsplit("::").next().unwrap_or(law.id);
            writeln!(table, "| {} | `{name_of_law}` | `{name}` | {wrong} |", law.area).unwrap();
        }
    }
    table
}

const UPDATE: &str = "UPDATE_MUTANTS=1 cargo test -p derp-kv-conformance --test mutants";

#[test]
fn every_mutant_is_killed_and_every_law_kills_one() {
    let chosen = std::env::var("MUTANTS").unwrap_or_default();
    let runs: u32 = std::env::var("MUTANT_RUNS").map_or(1, |runs| runs.parse().expect("a number"));
    let mut mutants = mutants::all();
    mutants.retain(|mutant| mutant.law.id.contains(&chosen) || mutant.name.contains(&chosen));
    let mut survivors = String::new();
    for number in 1..=runs {
        for (mutant, report) in mutants.iter().zip(run(&mutants)) {
            let (name, law, wrong) = (mutant.name, report.law.id, mutant.wrong);
            match &report.verdict {
                Verdict::Violated { observed, .. } => {
                    println!("{:.2?} `{name}` killed by `{law}`: {observed}", report.time);
                }
                _ => {
                    writeln!(survivors, "run {number}: `{name}` survives `{law}`: {wrong}").unwrap()
                }
            }
        }
    }
    assert!(survivors.is_empty(), "\n{survivors}");
    if !chosen.is_empty() {
        return;
    }
    let killing: BTreeSet<_> = mutants.iter().map(|mutant| mutant.law.id).collect();
    let idle: Vec<_> = LAWS.iter().map(|law| law.id).filter(|id| !killing.contains(id)).collect();
    assert!(idle.is_empty(), "no mutant shows that these laws catch anything: {idle:?}");
}

#[test]
fn the_table_of_mutants_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("MUTANTS.md");
    let mutants = mutants::all();
    for Mutant { name, wrong, .. } in &mutants {
        let is_a_line = wrong.len() > 10 && !wrong.contains(['\n', '|']);
        assert!(is_a_line, "`{name}` does not say in a line what is broken: {wrong:?}");
    }
    let current = table(&mutants);
    if std::env::var_os("UPDATE_MUTANTS").is_some() {
        std::fs::write(&path, current).expect("MUTANTS.md can be written");
    } else {
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == current, "MUTANTS.md is not up to date; run `{UPDATE}`");
    }
}

#[test]
fn without_a_defect_every_law_holds() {
    let controls: Vec<_> = LAWS.iter().map(|law| mutant::<Honest>(law.id, "none")).collect();
    for report in run(&controls) {
        assert!(report.is_success(), "{report}");
    }
}
