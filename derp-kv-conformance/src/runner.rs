use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::bench::{Bench, Failure, LawResult};
use crate::erased::AnyHarness;
use crate::progress::{DefaultMethod, Progress};
use crate::report::{HarnessReport, LawReport, Report, Verdict};
use crate::seeds::Seeds;
use crate::violation::{Kind, Violation};
use crate::{Harness, LAWS, Law, Profile};

type Body = fn(&Bench<'_>) -> LawResult;

macro_rules! bodies {
    (() $($area:ident { $($law:ident: $sentence:literal, since $since:literal;)* })*) => {
        /// The laws themselves, in the order of `LAWS`.
        const BODIES: [Body; LAWS.len()] = [$($(crate::laws::$area::$law),*),*];
    };
}

crate::for_each_law! { bodies }

/// Tests one law and tells how it went.
///
/// # Panics
///
/// Where `LAWS` does not hold the law.
#[must_use]
pub fn run_law<H: Harness>(harness: H, law: &'static Law) -> LawReport {
    run(&erased(harness), law, None, &Arc::default())
}

/// Tests every law and collects what they come to.
///
/// It blocks the thread: each law has a thread and a runtime of its own, and as many laws run side by
/// side as the machine has processors, as `cargo test` does it. It shows its progress on standard
/// error.
///
/// # Examples
///
/// ```
/// # use async_trait::async_trait;
/// # use derp_kv_conformance::{BoxError, Harness, Profile, Time, run_all};
/// # use derp_kv_memory::MemoryStore;
/// # #[derive(Clone)]
/// # struct Memory;
/// # #[async_trait]
/// # impl Harness for Memory {
/// #     type Store = MemoryStore;
/// #     type Guard = ();
/// #     async fn open(&self) -> Result<(MemoryStore, ()), BoxError> {
/// #         Ok((MemoryStore::new(), ()))
/// #     }
/// #     fn time(&self) -> Time {
/// #         Time::Virtual
/// #     }
/// #     fn profile(&self) -> Profile {
/// #         Profile::default().cases(1).rounds(1).embedded()
/// #     }
/// # }
/// let report = run_all(&Memory);
/// println!("{report}");
/// assert!(report.is_success());
/// ```
pub fn run_all<H: Harness + Clone>(harness: &H) -> Report {
    run_each(&erased(harness.clone()), std::any::type_name::<H::Store>())
}

/// [`run_all`], of a store of the type of this name.
fn run_each(harness: &Arc<dyn AnyHarness>, store: &'static str) -> Report {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let ended = Mutex::new(Vec::new());
    let side_by_side = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..side_by_side {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(law) = LAWS.get(number) else { return };
                    let progress = Arc::new(Progress::default());
                    let report = run(harness, law, None, &progress);
                    let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
                    show(ended.len() + 1, &report);
                    ended.push((number, report));
                }
            });
        }
    });
    let mut ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    ended.sort_by_key(|(number, _)| *number);
    let laws: Vec<_> = ended.into_iter().map(|(_, report)| report).collect();
    let defaults: BTreeSet<_> = laws.iter().flat_map(|law| &law.defaults).copied().collect();
    let defaults = defaults.into_iter().collect();
    let described = HarnessReport::new(harness.time(), &harness.profile(), defaults);
    Report::new(store, described, laws, began.elapsed())
}

/// One line of progress: on a terminal in the place of the one before, elsewhere below it.
fn show(ended: usize, report: &LawReport) {
    let mut output = std::io::stderr();
    let (law, seconds) = (report.law.id, report.time.as_secs_f64());
    let verdict = report.verdict.name();
    let line = format!("[{ended}/{}] {law}: {verdict} ({seconds:.2} s)", LAWS.len());
    // That it cannot be shown stops no law.
    let _ = match (output.is_terminal(), ended == LAWS.len()) {
        (true, false) => write!(output, "\r\x1b[2K{line}"),
        (true, true) => writeln!(output, "\r\x1b[2K{line}"),
        (false, _) => writeln!(output, "{line}"),
    };
    let _ = output.flush();
}

/// What a generated test does.
#[doc(hidden)]
pub fn assert_law<H: Harness>(harness: H, id: &str, manifest_dir: &str, source: &str) {
    assert_named(&erased(harness), id, manifest_dir, source);
}

fn assert_named(harness: &Arc<dyn AnyHarness>, id: &str, manifest_dir: &str, source: &str) {
    let law = Law::named(id).unwrap_or_else(|| panic!("there is no law `{id}`"));
    let seeds = Seeds::beside(manifest_dir, source, law.area, law.id);
    let report = run(harness, law, seeds, &Arc::default());
    if !report.is_success() {
        panic!("{report}");
    }
    if !matches!(report.verdict, Verdict::Holds) || !report.defaults.is_empty() {
        // What a test that passes prints is shown where its output is asked for.
        println!("{report}");
    }
}

/// From here on, nothing is compiled for a type of harness.
fn erased(harness: impl Harness) -> Arc<dyn AnyHarness> {
    Arc::new(harness)
}

fn run(
    harness: &Arc<dyn AnyHarness>,
    law: &'static Law,
    seeds: Option<Seeds>,
    progress: &Arc<Progress>,
) -> LawReport {
    let profile = harness.profile();
    let began = Instant::now();
    let result = match profile.mistake() {
        None => isolated(harness, law, &profile, seeds, progress),
        Some(mistake) => {
            let mistake = format!("the profile is wrong: {mistake}");
            Err(Violation::of(Kind::NotTried, mistake).into())
        }
    };
    let verdict = judge(result, profile.deviations.get(law.id).cloned());
    let (cases, seed) = (progress.cases(), profile.seed);
    let defaults = progress.defaults().into_iter().map(DefaultMethod::describe).collect();
    LawReport { law, cases, time: began.elapsed(), seed, defaults, verdict }
}

fn judge(result: LawResult, declared: Option<String>) -> Verdict {
    let (failure, declared) = match (result, declared) {
        (Ok(()), None) => return Verdict::Holds,
        (Ok(()), Some(reason)) => return Verdict::Unfounded { reason },
        (Err(failure), declared) => (failure, declared),
    };
    let Failure { violation, history } = failure;
    let text = violation.to_string();
    match (violation.kind, declared) {
        (Kind::NotTried, _) => Verdict::NotTried { why: text },
        (Kind::Unproved, _) => Verdict::Unproved { why: text },
        (Kind::Observed, Some(reason)) => Verdict::Deviates { reason, observed: text },
        (Kind::Broken | Kind::Hung, Some(_)) => {
            let observed = format!("it deviates otherwise than declared: {text}");
            Verdict::Violated { observed, history }
        }
        (Kind::Observed | Kind::Broken | Kind::Hung, None) => {
            Verdict::Violated { observed: text, history }
        }
    }
}

/// Runs the law on a thread of its own, so that a store that blocks it is a named failure, too.
fn isolated(
    harness: &Arc<dyn AnyHarness>,
    law: &'static Law,
    profile: &Profile,
    seeds: Option<Seeds>,
    progress: &Arc<Progress>,
) -> LawResult {
    let body = LAWS.iter().zip(BODIES).find(|(known, _)| known.id == law.id);
    let (_, body) = body.unwrap_or_else(|| panic!("there is no law `{}`", law.id));
    let kept = profile.seeds && !profile.deviations.contains_key(law.id);
    let (harness, profile, progress) = (harness.clone(), profile.clone(), progress.clone());
    let (law_timeout, watched) = (profile.stretched_law_timeout(), progress.clone());
    let (ended, end) = channel();
    let work = move || {
        crate::resolution::promise(profile.promised_resolution());
        let seeds = seeds.filter(|_| kept);
        let bench = Bench { harness: &*harness, profile: &profile, seeds, progress };
        let result = body(&bench);
        // Nobody listens any more where the law was given up.
        let _ = ended.send(result);
    };
    let thread = std::thread::Builder::new().name(law.id.to_owned()).spawn(work);
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => {
            return Err(
                Violation::of(Kind::NotTried, format!("there is no thread: {error}")).into()
            );
        }
    };
    let began = Instant::now();
    let ended = loop {
        // It grows once the law has found out how slow the store is.
        let law_timeout = law_timeout.saturating_mul(watched.stretch());
        match end.recv_timeout(law_timeout.saturating_sub(began.elapsed())) {
            Err(RecvTimeoutError::Timeout)
                if began.elapsed() < law_timeout.saturating_mul(watched.stretch()) => {}
            ended => break ended,
        }
    };
    match ended {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(Failure {
            violation: Violation::of(
                Kind::Hung,
                format!("it hangs: the law has not ended within {law_timeout:?}"),
            ),
            history: Some(watched.current()),
        }),
        Err(RecvTimeoutError::Disconnected) => {
            let panic = thread.join().err().unwrap_or_else(|| Box::new("without a message"));
            let violation = Violation::panicked(&*panic);
            Err(Failure { violation, history: Some(watched.current()) })
        }
    }
}
