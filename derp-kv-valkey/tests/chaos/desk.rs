//! What the callers of one process share: the store, the eras, and the book of what they saw.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use derp_kv_core::Error;
use derp_kv_valkey::ValkeyStore;
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::timeout;

use crate::dice::{Dice, now};
use crate::register::Written;
use crate::report::{GROUPS, Place, Report, Tally};

pub(crate) const OP_TIMEOUT: Duration = Duration::from_secs(2);
/// Beyond its own bound, before a call is said to hang: the machine may be busy.
const SLACK: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) kv: ValkeyStore,
    /// The number of this process.
    pub(crate) process: usize,
    pub(crate) stop: AtomicBool,
    /// When the last fault was over.
    pub(crate) healed: AtomicU64,
    /// The era of each group. A caller that uses a group's keys holds it, so that an era has ended
    /// when nobody uses its keys any more.
    eras: Vec<RwLock<u32>>,
    report: Mutex<Report>,
    counters: Mutex<BTreeMap<Place, Tally>>,
}

/// What a call came to.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    Is(T),
    /// An error; whether a write was applied, nobody knows.
    Unknown,
    /// An error that promises that nothing was written.
    Refused,
}

impl<T> Answer<T> {
    pub(crate) fn written(&self) -> Written {
        match self {
            Self::Is(_) => Written::Applied,
            Self::Unknown => Written::Unknown,
            Self::Refused => Written::Never,
        }
    }
}

impl Desk {
    pub(crate) fn new(kv: ValkeyStore, process: usize) -> Self {
        Self {
            kv,
            process,
            stop: AtomicBool::new(false),
            healed: AtomicU64::new(0),
            eras: (0..GROUPS).map(|_| RwLock::new(0)).collect(),
            report: Mutex::default(),
            counters: Mutex::default(),
        }
    }

    pub(crate) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, place: Place, write: impl FnOnce(&mut Tally)) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        write(counters.entry(place).or_default());
    }

    /// Everything that was seen, once all callers have ended.
    pub(crate) fn close(&self) -> Report {
        let mut report = std::mem::take(&mut *self.report());
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        report.counters = std::mem::take(&mut *counters).into_iter().collect();
        report
    }

    /// The present era of a group, which lasts as long as the guard.
    pub(crate) async fn enter(&self, group: usize) -> (Place, RwLockReadGuard<'_, u32>) {
        let era = self.eras[group].read().await;
        (Place { group, era: *era }, era)
    }

    /// Begins a new era once nobody uses the keys of the old one any more.
    pub(crate) async fn turn(&self, group: usize) {
        *self.eras[group].write().await += 1;
    }
}

/// One of the tasks that call the store, on and on.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) desk: Arc<Desk>,
    pub(crate) name: String,
    /// When its first success since the last fault came.
    pub(crate) back: Arc<AtomicU64>,
}

impl Caller {
    pub(crate) fn new(desk: &Arc<Desk>, what: &str, number: usize) -> Self {
        let name = format!("{what} {number} of process {}", desk.process);
        Self { desk: Arc::clone(desk), name, back: Arc::default() }
    }

    pub(crate) fn dice(&self) -> Dice {
        let seed =
            self.name.bytes().fold(7_u64, |seed, byte| seed * 31 % 999_983 + u64::from(byte));
        Dice::new(seed)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.desk.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn succeeded(&self) {
        if self.back.load(Ordering::Relaxed) <= self.desk.healed.load(Ordering::Relaxed) {
            self.back.store(now(), Ordering::Relaxed);
        }
    }

    pub(crate) fn begins(&self, operation: &str) {
        *self.desk.report().calls.entry(operation.to_owned()).or_default() += 1;
    }

    /// One operation, which must end within `OP_TIMEOUT`.
    pub(crate) async fn call<T>(
        &self,
        operation: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Answer<T> {
        self.call_within(OP_TIMEOUT, operation, call).await
    }

    pub(crate) async fn call_within<T>(
        &self,
        at_most: Duration,
        operation: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Answer<T> {
        self.begins(operation);
        let Some(result) = self.ends(at_most, operation, call).await else {
            return Answer::Unknown;
        };
        if result.is_ok() {
            self.succeeded();
        }
        self.note(operation, result)
    }

    /// Waits for something that ends by itself; `None` where it hangs.
    pub(crate) async fn ends<T>(
        &self,
        at_most: Duration,
        what: &str,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let ended = timeout(at_most + SLACK, future).await.ok();
        if ended.is_none() {
            let what = || format!("{what} of {} did not end", self.name);
            self.desk.report().hangs.add(1, what);
        }
        ended
    }

    /// Writes down what a call came to.
    pub(crate) fn note<T>(&self, operation: &str, result: Result<T, Error>) -> Answer<T> {
        let error = match result {
            Ok(value) => return Answer::Is(value),
            Err(error) => error,
        };
        let mut report = self.desk.report();
        *report.errors.entry(format!("{operation} {:?}", error.kind())).or_default() += 1;
        if !error.is_transient() {
            report.lasting.add(1, || format!("{}: {error:?}", self.name));
        }
        if error.may_have_applied() {
            report.unknown += 1;
            return Answer::Unknown;
        }
        Answer::Refused
    }

    /// Writes down what would be wrong where none of these places has seen a death.
    pub(crate) fn stale(&self, places: Vec<Place>, what: impl FnOnce() -> String) {
        let mut report = self.desk.report();
        // One for each tells enough.
        if report.stale.iter().all(|(seen, _)| *seen != places) {
            report.stale.push((places, format!("{}: {}", self.name, what())));
        }
    }
}
