//! What an author sees: failures, deviations, hangs, a harness that cannot open, the report.

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::Naive;
use derp_kv_conformance::{
    BoxError, Harness, LAWS, Law, LawReport, Operation, Profile, Time, Verdict, assert_law,
    run_all, run_law,
};
use derp_kv_core::{Layer, Layered, Result};

/// What is wrong with a broken store.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    /// A deletion is always reported as one.
    DeleteIsTrue,
    /// A deletion waits for ever.
    DeleteHangs,
    /// A deletion keeps its thread.
    DeleteBlocks,
    DeletePanics,
}

#[derive(Clone, Copy, Debug)]
struct Breaks(Fault);

impl Layer for Breaks {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if operation != Operation::Delete {
            return call.await;
        }
        match self.0 {
            Fault::Nothing | Fault::DeleteIsTrue => call.await,
            Fault::DeleteHangs => std::future::pending().await,
            Fault::DeleteBlocks => loop {
                std::thread::park();
            },
            Fault::DeletePanics => panic!("the disk is gone"),
        }
    }
}

type Broken = Layered<Naive, Breaks>;

#[derive(Clone)]
struct Bench {
    fault: Fault,
    time: Time,
    profile: Profile,
}

impl Bench {
    fn with(fault: Fault) -> Self {
        Self { fault, time: Time::Virtual, profile: Profile::default() }
    }

    fn profile(mut self, change: impl FnOnce(Profile) -> Profile) -> Self {
        self.profile = change(self.profile);
        self
    }
}

#[async_trait]
impl Harness for Bench {
    type Store = Broken;
    type Guard = ();

    async fn open(&self) -> Result<(Broken, ()), BoxError> {
        let naive = Naive::claiming_deletions(self.fault == Fault::DeleteIsTrue);
        Ok((Layered::new(naive, Breaks(self.fault)), ()))
    }

    fn time(&self) -> Time {
        self.time
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }
}

const LAW: &str = "basics::delete_reports_presence";

fn run(harness: impl Harness) -> LawReport {
    run_law(harness, Law::named(LAW).expect("the law is listed"))
}

fn observed(report: &LawReport) -> &str {
    match &report.verdict {
        Verdict::Violated { observed, .. } => observed,
        verdict => panic!("it is not violated: {verdict:?}"),
    }
}

#[test]
fn a_failure_names_the_law_what_was_seen_and_the_shortest_history() {
    let report = run(Bench::with(Fault::DeleteIsTrue));
    assert!(!report.is_success());
    assert_eq!(
        report.to_string(),
        "law `basics::delete_reports_presence` violated: \
         `delete` is true exactly where it removed a value\n  \
         observed: delete of the deleted b\"\" is true, not false\n  \
         shortest history: ([b\"\"], b\"\")\n  \
         if intended: Profile::deviates(\"basics::delete_reports_presence\", \"<why>\")"
    );
    let guide = include_str!("../README.md");
    assert!(guide.contains(&report.to_string()), "the guide shows another failure");
}

#[test]
fn a_hang_is_a_named_failure_in_either_time() {
    let report = run(Bench::with(Fault::DeleteHangs));
    assert_eq!(observed(&report), "it hangs: a call has never returned");
    let mut harness = Bench::with(Fault::DeleteHangs)
        .profile(|profile| profile.case_timeout(Duration::from_millis(200)));
    harness.time = Time::Real;
    assert_eq!(observed(&run(harness)), "it hangs: a call has never returned");
}

#[test]
fn a_store_that_blocks_its_thread_is_a_named_failure() {
    let harness = Bench::with(Fault::DeleteBlocks)
        .profile(|profile| profile.law_timeout(Duration::from_secs(1)));
    let report = run(harness);
    assert_eq!(observed(&report), "it hangs: the law has not ended within 1s");
    let Verdict::Violated { history: Some(history), .. } = report.verdict else {
        panic!("it does not say in which case");
    };
    assert!(history.contains("b\""), "{history}");
}

#[test]
fn a_panic_is_a_named_failure() {
    let report = run(Bench::with(Fault::DeletePanics).profile(|profile| profile.cases(1)));
    assert_eq!(observed(&report), "it panics: the disk is gone");
}

#[test]
fn a_declared_deviation_must_show() {
    let declared =
        |fault| run(Bench::with(fault).profile(|profile| profile.deviates(LAW, "it never looks")));
    let report = declared(Fault::DeleteIsTrue);
    assert!(report.is_success());
    assert!(
        matches!(&report.verdict, Verdict::Deviates { reason, .. } if reason == "it never looks")
    );
    let report = declared(Fault::Nothing);
    assert!(!report.is_success());
    assert_eq!(
        report.to_string(),
        "law `basics::delete_reports_presence` is declared as a deviation (it never looks) but \
         holds\n  remove the declaration: \
         Profile::deviates(\"basics::delete_reports_presence\", …)"
    );
}

#[test]
fn a_declaration_that_says_nothing_fails() {
    let declare = |law: &str, reason: &str| {
        let profile = |profile: Profile| profile.deviates(law, reason);
        run(Bench::with(Fault::Nothing).profile(profile))
    };
    let unknown = declare("basics::typing_error", "because");
    assert_eq!(
        observed(&unknown),
        "the profile declares a deviation from `basics::typing_error`: no such law"
    );
    let other = declare("basics::any_bytes", " ");
    assert!(observed(&other).ends_with("without a reason"));
}

struct Closed(Arc<std::sync::atomic::AtomicU32>);

#[async_trait]
impl Harness for Closed {
    type Store = Naive;
    type Guard = ();

    async fn open(&self) -> Result<(Naive, ()), BoxError> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Err("there is no `acme-server`; install it, or set ACME_SERVER".into())
    }
}

#[test]
fn a_harness_that_cannot_open_fails_at_once_with_its_words() {
    let asked = Arc::default();
    let report = run(Closed(Arc::clone(&asked)));
    assert_eq!(
        observed(&report),
        "the harness could not open a store: \
         there is no `acme-server`; install it, or set ACME_SERVER"
    );
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn the_report_collects_every_violation_and_serialises() {
    let harness = Bench::with(Fault::DeleteIsTrue).profile(|profile| {
        let profile = profile.cases(8).rounds(4);
        profile.deviates("concurrency::one_delete_wins", "it never looks")
    });
    let report = run_all(&harness);
    assert!(!report.is_success());
    assert_eq!(report.laws.len(), LAWS.len());
    let failures: Vec<_> = report.failures().map(|failure| failure.law.id).collect();
    assert!(failures.contains(&LAW) && failures.contains(&"expiry::expired_is_absent"));
    assert!(!failures.contains(&"concurrency::one_delete_wins"));

    let table = report.to_string();
    for law in LAWS {
        assert!(table.contains(law.id), "the table lacks {}:\n{table}", law.id);
    }
    assert!(table.contains("deviates: it never looks"), "{table}");
    assert!(table.contains("  if intended: Profile::deviates("), "{table}");

    assert!(table.contains(" of them by deviating as declared, on "), "{table}");

    let badge: serde_json::Value = serde_json::from_str(&report.badge()).expect("a badge is JSON");
    let holding = LAWS.len() - failures.len() - 1;
    assert_eq!(badge["message"], format!("{holding} of {}", LAWS.len()));
    assert_eq!((&badge["schemaVersion"], &badge["color"]), (&1.into(), &"red".into()));

    let json = serde_json::to_value(&report).expect("a report is JSON");
    assert_eq!(json["laws"].as_array().map(Vec::len), Some(LAWS.len()));
    let law = &json["laws"][LAWS.iter().position(|law| law.id == LAW).expect("listed")];
    assert_eq!(law["id"], LAW);
    assert_eq!(law["verdict"], "violated");
    assert!(law["observed"].is_string() && law["seconds"].is_number() && law["cases"].is_u64());
}

#[test]
fn seeds_of_failures_are_kept_beside_the_test_and_tried_first() {
    let folder = std::env::temp_dir().join(format!("{}", std::process::id()));
    let source = folder.join("tests/mine.rs");
    std::fs::create_dir_all(folder.join("tests")).expect("a directory for the test");
    std::fs::write(&source, "").expect("a test file");
    let manifest_dir = folder.to_str().expect("the path is text").to_owned();
    let seeds = folder.join("tests/mine-seeds/basics.txt");
    let test = |fault, profile: fn(Profile) -> Profile| {
        let (harness, folder) = (Bench::with(fault).profile(profile), manifest_dir.clone());
        std::panic::catch_unwind(move || assert_law(harness, LAW, &folder, "tests/mine.rs"))
    };

    assert!(test(Fault::DeleteIsTrue, |profile| profile.deviates(LAW, "why")).is_ok());
    assert!(test(Fault::DeleteIsTrue, Profile::without_seeds).is_err());
    assert!(!seeds.exists(), "a deviation, or one that was not to be kept, left a seed");
    assert!(test(Fault::DeleteIsTrue, |profile| profile).is_err());
    let kept = std::fs::read_to_string(&seeds).expect("the failure left a seed");
    let lines: Vec<_> = kept.lines().filter(|line| line.starts_with(LAW)).collect();
    assert_eq!(lines.len(), 1, "{kept}");
    // Found again by its seed, a failure is not written down once more; a law that holds passes.
    assert!(test(Fault::DeleteIsTrue, |profile| profile).is_err());
    assert!(test(Fault::Nothing, |profile| profile).is_ok());
    assert_eq!(std::fs::read_to_string(&seeds).expect("the seeds"), kept);
    std::fs::remove_dir_all(&folder).expect("the directory goes");
}
