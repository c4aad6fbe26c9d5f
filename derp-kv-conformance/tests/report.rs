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
use derp_kv_core::{Error, ErrorKind, Layer, Layered, Result};

/// What is wrong with a broken store.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    /// A deletion is always reported as one.
    DeleteIsTrue,
    /// The same, and it takes a fifth of a second.
    DeleteIsTrueAndSlow,
    /// A deletion waits for ever.
    DeleteHangs,
    /// A deletion keeps its thread.
    DeleteBlocks,
    DeletePanics,
    /// A deletion fails as where the server is gone.
    DeleteIsOut,
    /// A deletion is refused for good.
    DeleteIsUnsupported,
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
            Fault::DeleteIsTrueAndSlow => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                call.await
            }
            Fault::DeleteHangs => std::future::pending().await,
            Fault::DeleteBlocks => loop {
                std::thread::park();
            },
            Fault::DeletePanics => panic!("the disk is gone"),
            Fault::DeleteIsOut => Err(Error::new(ErrorKind::Unavailable, "the server is gone")),
            Fault::DeleteIsUnsupported => Err(Error::new(ErrorKind::Unsupported, "append only")),
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
        Self { fault, time: Time::Virtual, profile: Profile::default().seed(7).embedded() }
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
        let claims = [Fault::DeleteIsTrue, Fault::DeleteIsTrueAndSlow].contains(&self.fault);
        let naive = Naive::claiming_deletions(claims);
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

fn not_tried(report: &LawReport) -> &str {
    assert!(!report.is_success());
    match &report.verdict {
        Verdict::NotTried { why } => why,
        verdict => panic!("it was tried: {verdict:?}"),
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
         same inputs again: Profile::seed(7)\n  \
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
         holds\n  same inputs again: Profile::seed(7)\n  remove the declaration: \
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
        not_tried(&unknown),
        "the profile is wrong: it declares a deviation from `basics::typing_error`, and there is no \
         such law"
    );
    let other = declare("basics::any_bytes", " ");
    assert!(not_tried(&other).ends_with("without a reason"));
    // Nor does a right declaration beside it make it right.
    let both = run(Bench::with(Fault::DeleteIsTrue)
        .profile(|profile| profile.deviates(LAW, "it never looks").deviates("basics::no", "why")));
    assert!(not_tried(&both).contains("`basics::no`"));
    let short = run(Bench::with(Fault::Nothing).profile(|profile| profile.longest_key(1_279)));
    assert_eq!(
        not_tried(&short),
        "the profile is wrong: it declares a longest key of 1279 bytes, and the helpers need 1280"
    );
}

#[test]
fn only_what_the_law_observes_is_its_deviation() {
    let declared = |fault| {
        let profile = |profile: Profile| {
            profile
                .deviates(LAW, "it never looks")
                .case_timeout(Duration::from_millis(200))
                .law_timeout(Duration::from_secs(1))
        };
        run(Bench::with(fault).profile(profile))
    };
    for (fault, seen) in [
        (Fault::DeleteHangs, "it hangs: a call has never returned"),
        (Fault::DeleteBlocks, "it hangs: the law has not ended within 1s"),
        (Fault::DeletePanics, "it panics: the disk is gone"),
        (Fault::DeleteIsOut, "an operation that must succeed failed: store unavailable"),
    ] {
        let report = declared(fault);
        let told = observed(&report);
        let begin = format!("it deviates otherwise than declared: {seen}");
        assert!(told.starts_with(&begin), "{fault:?}: {told}");
    }
    for fault in [Fault::DeleteIsTrue, Fault::DeleteIsUnsupported] {
        assert!(matches!(declared(fault).verdict, Verdict::Deviates { .. }), "{fault:?}");
    }
}

/// Opens once, and panics the next time.
struct PanicsLater(std::sync::atomic::AtomicU32);

#[async_trait]
impl Harness for PanicsLater {
    type Store = Naive;
    type Guard = ();

    async fn open(&self) -> Result<(Naive, ()), BoxError> {
        let before = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        assert!(before == 0, "the port is taken");
        Ok((Naive::claiming_deletions(true), ()))
    }

    fn profile(&self) -> Profile {
        Profile::default().deviates(LAW, "it never looks")
    }
}

#[test]
fn a_harness_that_panics_is_no_deviation() {
    let report = run(PanicsLater(Default::default()));
    let told = observed(&report);
    assert_eq!(told, "it deviates otherwise than declared: it panics: the port is taken");
}

/// Deletions of more than one byte panic, and the others are wrong as declared.
#[derive(Clone, Copy, Debug)]
struct PanicsOnLong;

impl Layer for PanicsOnLong {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let long = key.is_some_and(|key| key.len() > 1);
        assert!(operation != Operation::Delete || !long, "a long key");
        call.await
    }
}

/// Of the inputs that a seed makes.
struct TwoFaults {
    seed: u64,
}

#[async_trait]
impl Harness for TwoFaults {
    type Store = Layered<Naive, PanicsOnLong>;
    type Guard = ();

    async fn open(&self) -> Result<(Self::Store, ()), BoxError> {
        Ok((Layered::new(Naive::claiming_deletions(true), PanicsOnLong), ()))
    }

    fn time(&self) -> Time {
        Time::Virtual
    }

    fn profile(&self) -> Profile {
        Profile::default().without_seeds().seed(self.seed).deviates(LAW, "it never looks")
    }
}

#[test]
fn a_shorter_input_does_not_hide_what_failed_first() {
    // Of many first inputs, some panic: shrinking these must not end at the declared deviation.
    let mut panicked = 0;
    for seed in 0..20 {
        let report = run(TwoFaults { seed });
        match &report.verdict {
            Verdict::Violated { observed, .. } => {
                assert!(observed.ends_with("it panics: a long key"), "{observed}");
                panicked += 1;
            }
            verdict => assert!(matches!(verdict, Verdict::Deviates { .. }), "{verdict:?}"),
        }
    }
    assert!(panicked > 0, "no first input had a long key");
}

#[derive(Clone)]
struct Closed(Arc<std::sync::atomic::AtomicU32>);

#[async_trait]
impl Harness for Closed {
    type Store = Naive;
    type Guard = ();

    async fn open(&self) -> Result<(Naive, ()), BoxError> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Err("there is no `acme-server`; install it, or set ACME_SERVER".into())
    }

    fn profile(&self) -> Profile {
        // A declaration hides no server that cannot be started.
        Profile::default().deviates(LAW, "it never looks")
    }
}

#[test]
fn a_harness_that_cannot_open_fails_at_once_with_its_words() {
    let asked = Arc::default();
    let report = run(Closed(Arc::clone(&asked)));
    let why = "the harness could not open a store: \
               there is no `acme-server`; install it, or set ACME_SERVER";
    assert_eq!(not_tried(&report), why);
    assert_eq!(
        report.to_string(),
        format!("law `{LAW}` was not tried, so nothing is known of it\n  {why}")
    );
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    // The report of all laws says it once, and not for each law.
    let all = run_all(&Closed(asked)).to_string();
    assert_eq!(all.matches(why).count(), 1, "{all}");
    let laws = LAWS.len();
    let headline = format!("\n\n{laws} laws were not tried, so nothing is known of them\n  {why}");
    assert!(all.ends_with(&headline), "{all}");
    assert!(all.contains(&format!("0 of {} laws pass", LAWS.len())), "{all}");
}

/// A server that does not answer is not a law that is violated.
struct Slow;

#[async_trait]
impl Harness for Slow {
    type Store = Naive;
    type Guard = ();

    async fn open(&self) -> Result<(Naive, ()), BoxError> {
        std::future::pending().await
    }

    fn profile(&self) -> Profile {
        Profile::default().case_timeout(Duration::from_millis(50))
    }
}

#[test]
fn a_harness_that_never_opens_is_named_as_such() {
    let report = run(Slow);
    assert_eq!(not_tried(&report), "the harness has opened no store within 50ms");
}

#[test]
fn a_law_that_the_harness_cannot_prove_says_so() {
    let law = Law::named("connection::tells_what_was_applied").expect("the law is listed");
    let embedded = run_law(Bench::with(Fault::Nothing), law);
    assert_eq!(embedded.verdict, Verdict::Holds);
    let mut harness = Bench::with(Fault::Nothing);
    harness.profile = Profile::default();
    let report = run_law(harness, law);
    assert!(report.is_success());
    let Verdict::Unproved { why } = &report.verdict else { panic!("{report}") };
    assert!(why.contains("`Harness::sever`") && why.contains("unproved"), "{why}");
    assert!(report.to_string().contains("is unproved"), "{report}");
}

#[test]
fn a_failure_is_found_again_by_its_seed() {
    let history = |seed| {
        let harness = Bench::with(Fault::DeleteIsTrue)
            .profile(|profile| profile.seed(seed).without_seeds().cases(4));
        let law = Law::named("basics::reads_your_writes").expect("the law is listed");
        let report = run_law(harness, law);
        assert_eq!(report.seed, seed);
        (report.cases, report.verdict)
    };
    assert_eq!(history(3), history(3));
    let others = (4..12).map(history).filter(|other| *other != history(3));
    assert!(others.count() > 0, "every seed makes the same inputs");
}

#[test]
fn a_failing_law_is_not_shrunk_for_long() {
    // Each try takes its time, and the first input that fails is long.
    let mut harness = Bench::with(Fault::DeleteHangs)
        .profile(|profile| profile.case_timeout(Duration::from_millis(300)).without_seeds());
    harness.time = Time::Real;
    let law = Law::named("basics::reads_your_writes").expect("the law is listed");
    let report = run_law(harness, law);
    assert_eq!(observed(&report), "it hangs: a call has never returned");
    let Verdict::Violated { history: Some(history), .. } = &report.verdict else {
        panic!("{report}")
    };
    assert!(history.len() > 2, "{history}");
    // Cases that held may have come first; after the one that hung, none was tried.
    let hung = report.time.as_millis() / 300;
    assert!(hung < 20, "{hung} cases hung");

    // A wrong store that is slow: each case takes its time, and many shorter inputs fail as well.
    let slow = Bench::with(Fault::DeleteIsTrueAndSlow).profile(Profile::without_seeds);
    let report = run_law(Bench { time: Time::Real, ..slow }, law);
    assert!(matches!(report.verdict, Verdict::Violated { .. }), "{report}");
    assert!(report.time < Duration::from_secs(30), "{:?} went by", report.time);
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
    assert!(
        table.contains("tested in virtual time with 8 cases, 4 rounds and seed 7\n"),
        "{table}"
    );
    assert!(table.contains("left at its default: second_handle: a clone"), "{table}");
    assert!(table.contains("left at its default: elapse"), "{table}");
    assert!(!table.contains("left at its default: sever"), "{table}");

    let badge: serde_json::Value = serde_json::from_str(&report.badge()).expect("a badge is JSON");
    let holding = LAWS.len() - failures.len() - 1;
    assert_eq!(badge["message"], format!("{holding} of {}", LAWS.len()));
    assert_eq!((&badge["schemaVersion"], &badge["color"]), (&1.into(), &"red".into()));

    let json = serde_json::to_value(&report).expect("a report is JSON");
    assert_eq!(json["harness"]["seed"], 7);
    assert_eq!(json["harness"]["time"], "virtual");
    assert_eq!(json["harness"]["defaults"].as_array().map(Vec::len), Some(2));
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

/// Answers every call a while later.
#[derive(Clone, Copy, Debug)]
struct FarAway;

impl Layer for FarAway {
    async fn around<T: Send>(
        &self,
        _operation: Operation,
        _key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        tokio::time::sleep(Duration::from_millis(40)).await;
        call.await
    }
}

#[async_trait]
impl Harness for FarAway {
    type Store = Layered<Naive, Self>;
    type Guard = ();

    async fn open(&self) -> Result<(Self::Store, ()), BoxError> {
        Ok((Layered::new(Naive::claiming_deletions(false), *self), ()))
    }

    fn profile(&self) -> Profile {
        // Less than a case or a round takes here, if it were not for how far away the store is.
        let profile = Profile::default().cases(1).rounds(1).without_seeds();
        profile.case_timeout(Duration::from_millis(150))
    }
}

#[test]
fn a_store_far_away_does_not_hang() {
    // Cases of a property, and rounds of a race.
    let law = Law::named("expiry::value_and_expiry_agree").expect("the law is listed");
    let report = run_law(FarAway, law);
    assert!(report.is_success(), "{report}");
}
