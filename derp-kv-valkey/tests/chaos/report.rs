//! What the processes tell each other: the names of keys, and what a client process has seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Each group has a hash tag of its own, so that all its keys are in one slot.
pub(crate) const GROUPS: usize = 9;
pub(crate) const STABLE_KEYS: usize = 1500;

/// Where and when a key is used. Keys are never used again in the next era: what an era with a
/// death in it has done to them says nothing of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) group: usize,
    pub(crate) era: u32,
}

impl Place {
    pub(crate) fn key(self, what: &str) -> String {
        format!("{what}:{{{}}}:{}", tag(self.group), self.era)
    }
}

/// Chosen so that every third of the slots has three of them.
pub(crate) fn tag(group: usize) -> &'static str {
    ["g2", "g0", "g1", "g3", "g4", "g5", "g11", "g10", "g12"][group]
}

pub(crate) fn stable_key(number: usize) -> Vec<u8> {
    format!("stay:{number}").into_bytes()
}

/// What became of the increments of one counter.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// The values that were given to the callers: each is one acknowledged increment.
    pub(crate) values: Vec<i64>,
    /// Increments that failed and may have been applied.
    pub(crate) unknown: u64,
}

/// The times at which a holder of a lock saw that it held it, first and last.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Hold {
    pub(crate) place: Place,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// Something that must not happen, how often, and the first time in words.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Wrong {
    pub(crate) times: u64,
    pub(crate) first: String,
}

impl Wrong {
    pub(crate) fn add(&mut self, times: u64, what: impl FnOnce() -> String) {
        if self.times == 0 && times > 0 {
            self.first = what();
        }
        self.times += times;
    }
}

/// What the callers of one process have seen.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Calls, by operation.
    pub(crate) calls: BTreeMap<String, u64>,
    /// Errors, by operation and kind.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Errors that say that the write may have been applied.
    pub(crate) unknown: u64,
    pub(crate) hangs: Wrong,
    /// Another key's value, one that was never written, a key that a scan left out.
    pub(crate) callers: Wrong,
    /// An answer "not done", or an error that promises it, for a write that was done.
    pub(crate) denied: Wrong,
    /// Errors that say that trying again is of no use.
    pub(crate) lasting: Wrong,
    /// Values older than what the same caller has read or written, and the keys' places.
    pub(crate) stale: Vec<(Vec<Place>, String)>,
    pub(crate) counters: Vec<(Place, Tally)>,
    pub(crate) holds: Vec<Hold>,
    /// The register that the holders of a lock swap: what was acknowledged, from and to.
    pub(crate) swaps: Vec<(Place, String, String)>,
    /// Keys that `set_nx` made, by their number.
    pub(crate) made: Vec<(Place, u64)>,
    pub(crate) computed: u64,
    /// The longest time for which the process itself did not run, in milliseconds.
    pub(crate) stall_ms: u64,
}
