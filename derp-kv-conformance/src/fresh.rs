//! What no other run has.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::OnceLock;

/// A key prefix that no other case or test run has, for stores on a shared server.
#[must_use]
pub fn fresh_prefix() -> String {
    let [high, low] = [0, 1].map(random);
    format!("conformance:{high:016x}{low:016x}:")
}

/// The seed of this run, unless the profile names one.
pub(crate) fn run_seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    // Short enough to be copied by hand.
    *SEED.get_or_init(|| random(2) >> 32)
}

/// Each `RandomState` has random keys.
pub(crate) fn random(salt: u64) -> u64 {
    RandomState::new().hash_one(salt)
}
