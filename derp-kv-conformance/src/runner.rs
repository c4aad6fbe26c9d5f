use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

use crate::bench::{Bench, Failure, LawResult, Progress};
use crate::report::{LawReport, Report, Verdict};
use crate::seeds::Seeds;
use crate::violation::Violation;
use crate::{Harness, LAWS, Law, Profile};

type Body<H> = fn(&Bench<'_, H>) -> LawResult;

macro_rules! bodies {
    (($harness:ident) $($area:ident { $($law:ident: $sentence:literal, since $since:literal;)* })*) => {
        [$($(crate::laws::$area::$law::<$harness> as Body<$harness>),*),*]
    };
}

/// Tests one law and tells how it went.
///
/// # Panics
///
/// Where `LAWS` does not hold the law.
#[must_use]
pub fn run_law<H: Harness>(harness: H, law: &'static Law) -> LawReport {
    run(&Arc::new(harness), law, None)
}

/// Tests every law, one after the other, and collects what they come to.
///
/// It blocks the thread: each law has a runtime of its own. On a terminal it shows its progress.
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
/// #         Profile::default().cases(1).rounds(1)
/// #     }
/// # }
/// let report = run_all(&Memory);
/// println!("{report}");
/// assert!(report.is_success());
/// ```
pub fn run_all<H: Harness + Clone>(harness: &H) -> Report {
    let harness = Arc::new(harness.clone());
    let began = Instant::now();
    let mut laws = Vec::new();
    for (number, law) in LAWS.iter().enumerate() {
        show(&format!("[{}/{}] {}", number + 1, LAWS.len(), law.id));
        laws.push(run(&harness, law, None));
    }
    show("");
    Report::new::<H::Store>(laws, began.elapsed())
}

/// One line of progress, in the place of the one before.
fn show(line: &str) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        // That it cannot be shown stops no law.
        let _ = write!(terminal, "\r\x1b[2K{line}");
        let _ = terminal.flush();
    }
}

/// What a generated test does.
#[doc(hidden)]
pub fn assert_law<H: Harness>(harness: H, id: &str, manifest_dir: &str, source: &str) {
    let law = Law::named(id).unwrap_or_else(|| panic!("there is no law `{id}`"));
    let seeds = Seeds::beside(manifest_dir, source, law.area, law.id);
    let report = run(&Arc::new(harness), law, seeds);
    if !report.is_success() {
        panic!("{report}");
    }
    if let Verdict::Deviates { .. } = report.verdict {
        println!("{report}");
    }
}

fn run<H: Harness>(harness: &Arc<H>, law: &'static Law, seeds: Option<Seeds>) -> LawReport {
    let profile = harness.profile();
    let began = Instant::now();
    let progress = Arc::new(Progress::default());
    let result = match check(&profile) {
        Ok(()) => isolated(harness, law, &profile, seeds, &progress),
        Err(mistake) => Err(Failure { observed: mistake, history: None }),
    };
    let verdict = match (result, profile.deviations.get(law.id).cloned()) {
        (Ok(()), None) => Verdict::Holds,
        (Err(Failure { observed, history }), None) => Verdict::Violated { observed, history },
        (Err(failure), Some(reason)) => Verdict::Deviates { reason, observed: failure.observed },
        (Ok(()), Some(reason)) => Verdict::Unfounded { reason },
    };
    let cases = progress.cases.load(Ordering::Relaxed);
    LawReport { law, cases, time: began.elapsed(), verdict }
}

/// A declaration that no law reads would say nothing.
fn check(profile: &Profile) -> Result<(), String> {
    for (law, reason) in &profile.deviations {
        if Law::named(law).is_none() {
            return Err(format!("the profile declares a deviation from `{law}`: no such law"));
        }
        if reason.trim().is_empty() {
            return Err(format!("the profile declares a deviation from `{law}` without a reason"));
        }
    }
    Ok(())
}

/// Runs the law on a thread of its own, so that a store that blocks it is a named failure, too.
fn isolated<H: Harness>(
    harness: &Arc<H>,
    law: &'static Law,
    profile: &Profile,
    seeds: Option<Seeds>,
    progress: &Arc<Progress>,
) -> LawResult {
    let bodies: [Body<H>; LAWS.len()] = crate::for_each_law! { bodies, H };
    let body = LAWS.iter().zip(bodies).find(|(known, _)| known.id == law.id);
    let (_, body) = body.unwrap_or_else(|| panic!("there is no law `{}`", law.id));
    let kept = profile.seeds && !profile.deviations.contains_key(law.id);
    let (harness, profile, progress) = (harness.clone(), profile.clone(), progress.clone());
    let (law_timeout, watched) = (profile.law_timeout, progress.clone());
    let (ended, end) = channel();
    let work = move || {
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
            return Err(Failure {
                observed: format!("there is no thread: {error}"),
                history: None,
            });
        }
    };
    match end.recv_timeout(law_timeout) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(Failure {
            observed: format!("it hangs: the law has not ended within {law_timeout:?}"),
            history: Some(watched.current()),
        }),
        Err(RecvTimeoutError::Disconnected) => {
            let panic = thread.join().err().unwrap_or_else(|| Box::new("without a message"));
            let observed = Violation::panicked(&*panic).to_string();
            Err(Failure { observed, history: Some(watched.current()) })
        }
    }
}
