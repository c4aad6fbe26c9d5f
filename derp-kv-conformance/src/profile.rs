use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Law, fresh, resolution};

/// The shortest limit of a key that a store may declare: the helpers' names are as long as this.
const LEAST_LONGEST_KEY: usize = 1_280;

/// How long a key every store takes that declares nothing else: a mebibyte.
pub(crate) const LONGEST_KEY: usize = 1 << 20;

/// How thoroughly to test, how much time to allow, and where the store is known to deviate.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_conformance::Profile;
///
/// let profile = Profile::default()
///     .cases(256)
///     .ttl_slack(Duration::from_millis(20))
///     .ttl_resolution(Duration::from_secs(1))
///     .deviates("prefix::flights_are_its_own", "tenants share one connection and its flights");
/// # let _ = profile;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Profile {
    pub(crate) cases: u32,
    pub(crate) rounds: u32,
    pub(crate) ttl_slack: Duration,
    ttl_resolution: Duration,
    pub(crate) case_timeout: Duration,
    pub(crate) law_timeout: Duration,
    pub(crate) seeds: bool,
    pub(crate) seed: u64,
    pub(crate) embedded: bool,
    longest_key: Option<usize>,
    pub(crate) deviations: BTreeMap<String, String>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            cases: 64,
            rounds: 100,
            ttl_slack: Duration::from_millis(10),
            ttl_resolution: resolution::FINEST,
            case_timeout: Duration::from_secs(20),
            law_timeout: Duration::from_secs(120),
            seeds: true,
            seed: fresh::run_seed(),
            embedded: false,
            longest_key: None,
            deviations: BTreeMap::new(),
        }
    }
}

impl Profile {
    /// How many random cases a law that is tested by property gets. By default 64.
    pub fn cases(mut self, cases: u32) -> Self {
        self.cases = cases.max(1);
        self
    }

    /// How many rounds of contention a law about races gets. By default 100.
    pub fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds.max(1);
        self
    }

    /// How long after its TTL a key may still show, in real time. By default 10 ms. In virtual
    /// time there is no slack.
    pub fn ttl_slack(mut self, slack: Duration) -> Self {
        self.ttl_slack = slack;
        self
    }

    /// How coarse the TTLs are that the store keeps. By default one millisecond.
    ///
    /// A store of `resolution` promises, and every law then asks: a TTL ends not before what was
    /// asked for and less than one resolution later, and what is left of it is reported to within
    /// a resolution: never zero, and at most the TTL, rounded up, and one resolution. Leases and
    /// windows of the helpers may last as much longer. Whoever declares nothing is held to each TTL
    /// to the letter in virtual time, and to within [`ttl_slack`](Self::ttl_slack) in real time,
    /// in which the laws about a coarse store take longer.
    ///
    /// Below a millisecond or above a minute it is a mistake, with which every law fails. Above a
    /// second the rate limiter takes what is left of a window for that of a longer one: the laws
    /// that tell are to be declared as deviations.
    pub fn ttl_resolution(mut self, resolution: Duration) -> Self {
        self.ttl_resolution = resolution;
        self
    }

    /// The resolution that the laws ask for.
    pub(crate) fn promised_resolution(&self) -> Duration {
        self.ttl_resolution
    }

    /// [`law_timeout`](Self::law_timeout), where waiting for a coarse store takes longer.
    pub(crate) fn stretched_law_timeout(&self) -> Duration {
        self.law_timeout.saturating_mul(resolution::stretch_of(self.ttl_resolution))
    }

    /// After how long a single case is taken for hung. By default 20 seconds.
    pub fn case_timeout(mut self, timeout: Duration) -> Self {
        self.case_timeout = timeout;
        self
    }

    /// After how long a law is given up, also where the store blocks its thread. By default two
    /// minutes.
    pub fn law_timeout(mut self, timeout: Duration) -> Self {
        self.law_timeout = timeout;
        self
    }

    /// The longest key that the store takes, in bytes, where its documentation has a limit. It is
    /// then tested that keys up to this work, or up to a mebibyte where it is longer, and that longer
    /// ones are refused, where the limit is at most four mebibytes.
    ///
    /// By default a mebibyte works, and nothing is said of longer keys. No store may take less than
    /// 1,280 bytes: such is the length of the names that the helpers make. What a harness puts in
    /// front of each key, a [`Prefixed`](derp_kv_core::Prefixed), counts against the store's limit.
    pub fn longest_key(mut self, bytes: usize) -> Self {
        self.longest_key = Some(bytes);
        self
    }

    /// Keeps no seeds of failures. By default they are kept beside the file that invokes
    /// [`conformance_tests!`](crate::conformance_tests), and tried first the next time.
    pub fn without_seeds(mut self) -> Self {
        self.seeds = false;
        self
    }

    /// Makes the random inputs anew from `seed`, which a report names. By default each run has
    /// another one. What races do with the inputs is chance all the same.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Says that the store has no connection that could break: it is in this process. The laws
    /// about broken connections then hold without a
    /// [`Harness::sever`](crate::Harness::sever).
    pub fn embedded(mut self) -> Self {
        self.embedded = true;
        self
    }

    /// Declares that the store does not keep `law` (`area::law`), and why.
    ///
    /// The law is tested all the same. Only what the law itself observes counts as the deviation: a
    /// server that cannot be started, a panic and a call that hangs are failures as ever. A
    /// deviation that does not show any more fails as well, so that the declaration goes.
    pub fn deviates(mut self, law: impl Into<String>, reason: impl Into<String>) -> Self {
        self.deviations.insert(law.into(), reason.into());
        self
    }

    /// The longest key that has to work.
    pub(crate) fn key_limit(&self) -> usize {
        self.longest_key.unwrap_or(LONGEST_KEY)
    }

    /// Whether the store says that it refuses longer keys.
    pub(crate) fn refuses_longer_keys(&self) -> bool {
        self.longest_key.is_some()
    }

    /// What is wrong with it, if anything is: a declaration that no law reads would say nothing.
    pub(crate) fn mistake(&self) -> Option<String> {
        let (declared, finest, coarsest) =
            (self.ttl_resolution, resolution::FINEST, resolution::COARSEST);
        if !(finest..=coarsest).contains(&declared) {
            return Some(format!(
                "it declares a TTL resolution of {declared:?}, which is not from {finest:?} to \
                 {coarsest:?}"
            ));
        }
        if let Some(limit) = self.longest_key.filter(|limit| *limit < LEAST_LONGEST_KEY) {
            return Some(format!(
                "it declares a longest key of {limit} bytes, and the helpers need \
                 {LEAST_LONGEST_KEY}"
            ));
        }
        self.deviations.iter().find_map(|(law, reason)| {
            let declared = format!("it declares a deviation from `{law}`");
            if Law::named(law).is_none() {
                return Some(format!("{declared}, and there is no such law"));
            }
            reason.trim().is_empty().then(|| format!("{declared} without a reason"))
        })
    }
}
