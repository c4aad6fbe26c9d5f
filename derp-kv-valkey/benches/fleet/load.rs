//! Callers of one value, who ask again and again at a steady rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use derp_kv_core::{Freshness, Got, Source};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Pages;
use crate::calls::{Calls, counted};
use crate::support::measure::monotonic;

/// The value before any refresh, and the one that the origin gives.
pub(crate) const OLD: &str = "old";
pub(crate) const NEW: &str = "new";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) key: String,
    /// In each process.
    pub(crate) callers: u32,
    /// Between two questions of one caller.
    pub(crate) every: Duration,
    pub(crate) lasts: Duration,
    /// From one refresh to the next, as far as that is known before.
    pub(crate) cycle: Duration,
    /// How long the origin computes, and whether it fails then.
    pub(crate) compute: Duration,
    pub(crate) fails: bool,
    /// Whether all go as soon as somebody in the process got the new value.
    pub(crate) until_new: bool,
}

/// What came of it, in one process or in all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Those who got a fresh value, and those who got a stale one.
    pub(crate) fresh: Vec<Wait>,
    pub(crate) stale: Vec<Wait>,
    pub(crate) errors: usize,
    /// How many callers computed, or waited for somebody who did.
    pub(crate) waited: usize,
    /// The most calls of the store that a caller waited for, and all calls, also those in the background.
    pub(crate) most_calls: u64,
    pub(crate) calls: u64,
    /// When computations began, on the clock that all processes share.
    pub(crate) computations: Vec<Duration>,
}

/// One answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Wait {
    /// In which [`Load::cycle`] it was asked for.
    pub(crate) cycle: u32,
    pub(crate) micros: u32,
}

struct Origin {
    load: Load,
    computations: Mutex<Vec<Duration>>,
    done: AtomicBool,
}

impl Origin {
    async fn compute(self: Arc<Self>) -> Result<String> {
        self.computations.lock().unwrap_or_else(PoisonError::into_inner).push(monotonic());
        sleep(self.load.compute).await;
        if self.load.fails {
            bail!("the origin is down");
        }
        Ok(NEW.to_owned())
    }
}

impl Load {
    pub(crate) async fn run(self, pages: &Pages, calls: &Calls) -> Result<Told> {
        let callers = self.callers;
        let computations = Mutex::default();
        let origin = Arc::new(Origin { load: self, computations, done: AtomicBool::new(false) });
        calls.take();
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for nth in 0..callers {
            // They do not all ask at the same moment.
            let begins = began + origin.load.every * nth / callers;
            tasks.spawn(caller(pages.clone(), origin.clone(), begins, began + origin.load.lasts));
        }
        let mut all = Told::default();
        for told in tasks.join_all().await {
            all.add(told);
        }
        pages.drain(crate::LONG).await;
        all.calls = calls.take();
        let computations = origin.computations.lock().unwrap_or_else(PoisonError::into_inner);
        all.computations.extend(&*computations);
        Ok(all)
    }
}

async fn caller(pages: Pages, origin: Arc<Origin>, begins: Instant, ends: Instant) -> Told {
    let mut told = Told::default();
    let moments = (0..).map(|turn| begins + origin.load.every * turn);
    let began = ends - origin.load.lasts;
    for moment in moments.take_while(|moment| *moment < ends) {
        sleep_until(moment).await;
        let cycle = (moment - began).as_millis() / origin.load.cycle.as_millis().max(1);
        let cycle = u32::try_from(cycle).unwrap_or(u32::MAX);
        if origin.load.until_new && origin.done.load(Ordering::Relaxed) {
            break;
        }
        let compute = origin.clone();
        let asked = Instant::now();
        let get = pages.get_detailed(&origin.load.key, move |_stale| compute.compute());
        let (got, calls) = counted(get).await;
        let micros = u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX);
        told.hear(got, Wait { cycle, micros }, calls, &origin);
    }
    told
}

impl Told {
    fn hear(&mut self, got: Result<Got<String>>, wait: Wait, calls: u64, origin: &Origin) {
        self.most_calls = self.most_calls.max(calls);
        let Ok(got) = got else {
            self.errors += 1;
            return;
        };
        if got.value == NEW {
            origin.done.store(true, Ordering::Relaxed);
        }
        self.waited += usize::from(got.source != Source::Store);
        let waits = match got.freshness {
            Freshness::Fresh => &mut self.fresh,
            _ => &mut self.stale,
        };
        waits.push(wait);
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.fresh.extend(other.fresh);
        self.stale.extend(other.stale);
        self.errors += other.errors;
        self.waited += other.waited;
        self.most_calls = self.most_calls.max(other.most_calls);
        self.calls += other.calls;
        self.computations.extend(other.computations);
    }

    pub(crate) fn answers(&self) -> usize {
        self.fresh.len() + self.stale.len()
    }

    /// The most computations that began within any stretch of time of this length.
    pub(crate) fn most_within(&self, stretch: Duration) -> usize {
        let within = |from: Duration| {
            self.computations.iter().filter(|at| (from..from + stretch).contains(*at)).count()
        };
        self.computations.iter().map(|from| within(*from)).max().unwrap_or_default()
    }
}
