//! What was admitted, and how many of it were certainly in one window.

use std::time::Duration;

/// The calls of all callers.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) arrivals: usize,
    /// Of them, those that nobody knows of whether they were counted.
    pub(crate) errors: usize,
    /// Of each id, the calls that were admitted.
    pub(crate) admitted: Vec<Vec<Call>>,
}

/// When a call was sent and when its answer came, in nanoseconds: the server decided it between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
}

impl Asked {
    pub(crate) fn add(&mut self, other: Self) {
        self.arrivals += other.arrivals;
        self.errors += other.errors;
        self.admitted.resize(self.admitted.len().max(other.admitted.len()), Vec::new());
        for (calls, others) in self.admitted.iter_mut().zip(other.admitted) {
            calls.extend(others);
        }
    }

    /// The most calls of one id that were both sent and answered within a window of this length.
    /// There were as many or more in it: what is found breaks a bound only if it is broken.
    pub(crate) fn most_within(&self, window: Duration) -> usize {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let most = |calls: &Vec<Call>| most_within(calls.clone(), window);
        self.admitted.iter().map(most).max().unwrap_or(0)
    }
}

fn most_within(mut calls: Vec<Call>, window: u64) -> usize {
    calls.sort_unstable();
    // A window that holds the most can begin where one of them was sent.
    let within = |first: usize| {
        let end = calls[first].sent + window;
        let sent = calls[first..].iter().take_while(|call| call.sent < end);
        sent.filter(|call| call.answered < end).count()
    };
    (0..calls.len()).map(within).max().unwrap_or(0)
}
