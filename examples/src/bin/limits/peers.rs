//! What other libraries do, as models: each admits a call or not, and knows no store.

use std::collections::VecDeque;

use crate::run::Answer;

/// Two counters of windows that are aligned to the clock. The earlier one counts for the part of it
/// that a window that ends now would still hold, as if its calls had come evenly.
#[derive(Default)]
pub(crate) struct SlidingCounter {
    index: u64,
    before: u64,
    current: u64,
}

impl SlidingCounter {
    pub(crate) fn ask(&mut self, now: u64, limit: u64, window: u64) -> Answer {
        let (index, into) = (now / window, now % window);
        if index != self.index {
            self.before = if index == self.index + 1 { self.current } else { 0 };
            (self.index, self.current) = (index, 0);
        }
        // Rounded down, as they do.
        let admitted = self.before * (window - into) / window + self.current < limit;
        self.current += u64::from(admitted);
        Answer { admitted, retry_after: None }
    }
}

/// The moment of each call that was admitted.
#[derive(Default)]
pub(crate) struct SlidingLog(VecDeque<u64>);

impl SlidingLog {
    pub(crate) fn ask(&mut self, now: u64, limit: u64, window: u64) -> Answer {
        while self.0.front().is_some_and(|first| first + window <= now) {
            self.0.pop_front();
        }
        let admitted = (self.0.len() as u64) < limit;
        if admitted {
            self.0.push_back(now);
        }
        let first = self.0.front().copied().unwrap_or(now);
        Answer { admitted, retry_after: (!admitted).then(|| first + window - now) }
    }
}

/// A bucket that is full at first, and is filled evenly.
#[derive(Default)]
pub(crate) struct TokenBucket {
    /// What is missing in it, as the time that it takes to fill.
    missing: u64,
    filled: u64,
}

impl TokenBucket {
    pub(crate) fn ask(&mut self, now: u64, limit: u64, window: u64) -> Answer {
        self.missing = self.missing.saturating_sub(now - self.filled);
        self.filled = now;
        let after = self.missing + window / limit;
        let admitted = after <= window;
        if admitted {
            self.missing = after;
        }
        Answer { admitted, retry_after: (!admitted).then(|| after - window) }
    }
}
