//! Every law catches at least one plausible broken store.

mod mutants {
    pub(crate) mod broken;

    mod basics;
    mod batch;
    mod concurrency;
    mod conditional;
    mod counter;
    mod errors;
    mod expiry;
    mod helpers;
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
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use derp_kv_conformance::{LAWS, LawReport, Verdict};
use mutants::broken::{Honest, Mutant, mutant};

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

#[test]
fn every_mutant_is_killed_and_every_law_kills_one() {
    let mutants = mutants::all();
    let reports = run(&mutants);
    let mut survivors = String::new();
    for (mutant, report) in mutants.iter().zip(&reports) {
        match &report.verdict {
            Verdict::Violated { observed, .. } => {
                println!(
                    "{:.2?} killed by `{}`: {}\n  {observed}",
                    report.time, report.law.id, mutant.wrong
                );
            }
            _ => writeln!(survivors, "survives `{}`: {}", report.law.id, mutant.wrong).unwrap(),
        }
    }
    assert!(survivors.is_empty(), "\n{survivors}");
    let killing: BTreeSet<_> = mutants.iter().map(|mutant| mutant.law.id).collect();
    let idle: Vec<_> = LAWS.iter().map(|law| law.id).filter(|id| !killing.contains(id)).collect();
    assert!(idle.is_empty(), "no mutant shows that these laws catch anything: {idle:?}");
}

#[test]
fn without_a_defect_every_law_holds() {
    let controls: Vec<_> = LAWS.iter().map(|law| mutant::<Honest>(law.id, "none")).collect();
    for report in run(&controls) {
        assert!(report.is_success(), "{report}");
    }
}
