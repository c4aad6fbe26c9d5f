//! What happened in a history.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use derp_kv_core::{Error, Freshness, Source};
use tokio::time::Instant;

use crate::plan::Outcome;

#[derive(Debug, Default)]
pub(crate) struct Log {
    /// By the number that is their value.
    pub(crate) computations: Vec<Computation>,
    pub(crate) writes: Vec<Write>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) errors: Vec<Refusal>,
}

impl Log {
    /// One line for each entry, in their order.
    pub(crate) fn story(&self) -> String {
        let computed = self.computations.iter().enumerate();
        let computed =
            computed.map(|(number, entry)| (entry.began, format!("{number}: {entry:?}")));
        let written = self.writes.iter().map(|entry| (entry.began, format!("{entry:?}")));
        let answered = self.answers.iter().map(|entry| (entry.asked, format!("{entry:?}")));
        let mut story: Vec<_> = computed.chain(written).chain(answered).collect();
        story.sort();
        story.into_iter().map(|(_, line)| line + "\n").collect()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SharedLog(Arc<(Instant, Mutex<Log>)>);

impl SharedLog {
    /// A log whose history begins now.
    pub(crate) fn new() -> Self {
        Self(Arc::new((Instant::now(), Mutex::default())))
    }

    /// Since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.0.0.elapsed()
    }

    pub(crate) fn entries(&self) -> MutexGuard<'_, Log> {
        self.0.1.lock().unwrap()
    }

    /// What happened, once nobody can add anything.
    pub(crate) fn close(self) -> Log {
        Arc::into_inner(self.0).expect("all that wrote it are gone").1.into_inner().unwrap()
    }
}

/// A computation, or what stands for one: a value that was put.
#[derive(Clone, Debug)]
pub(crate) struct Computation {
    pub(crate) key: usize,
    pub(crate) put: bool,
    /// Whether it is one of several keys that are computed together: which of them fails is not known.
    pub(crate) together: bool,
    pub(crate) began: Duration,
    /// When it ended, or was dropped; none while it goes on.
    pub(crate) ended: Option<Duration>,
    /// None where it was dropped.
    pub(crate) outcome: Option<Outcome>,
}

/// An invalidation, or a value that was put.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: usize,
    /// The value that was put.
    pub(crate) value: Option<u32>,
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    /// Whether it was done, as its caller heard.
    pub(crate) done: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) key: usize,
    pub(crate) value: u32,
    pub(crate) asked: Duration,
    pub(crate) answered: Duration,
    /// None where the call does not say.
    pub(crate) how: Option<(Freshness, Source)>,
}

impl Answer {
    /// When its caller had the value at the earliest: of many keys, one may be there long before the
    /// others.
    pub(crate) fn had_at(&self) -> Duration {
        if self.how.is_some() { self.answered } else { self.asked }
    }
}

#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    pub(crate) what: crate::plan::What,
}

/// A computation that is under way. Dropped, it has ended.
pub(crate) struct Running {
    log: SharedLog,
    pub(crate) number: u32,
}

impl Running {
    pub(crate) fn begin(log: &SharedLog, key: usize, put: bool) -> Self {
        let mut entries = log.entries();
        let number = u32::try_from(entries.computations.len()).unwrap();
        let began = log.now();
        let begun = Computation { key, put, together: false, began, ended: None, outcome: None };
        entries.computations.push(begun);
        Self { log: log.clone(), number }
    }

    /// It is one of several.
    pub(crate) fn together(self) -> Self {
        self.log.entries().computations[self.number as usize].together = true;
        self
    }

    pub(crate) fn end(self, outcome: Outcome) {
        self.log.entries().computations[self.number as usize].outcome = Some(outcome);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ended = Some(self.log.now());
        self.log.entries().computations[self.number as usize].ended = ended;
    }
}
