use std::collections::BTreeMap;
use std::time::Duration;

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
///     .deviates("expiry::millisecond_resolution", "the disk format keeps whole seconds");
/// # let _ = profile;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Profile {
    pub(crate) cases: u32,
    pub(crate) rounds: u32,
    pub(crate) ttl_slack: Duration,
    pub(crate) case_timeout: Duration,
    pub(crate) law_timeout: Duration,
    pub(crate) seeds: bool,
    pub(crate) deviations: BTreeMap<String, String>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            cases: 64,
            rounds: 100,
            ttl_slack: Duration::from_millis(10),
            case_timeout: Duration::from_secs(20),
            law_timeout: Duration::from_secs(120),
            seeds: true,
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

    /// Keeps no seeds of failures. By default they are kept beside the file that invokes
    /// [`conformance_tests!`](crate::conformance_tests), and tried first the next time.
    pub fn without_seeds(mut self) -> Self {
        self.seeds = false;
        self
    }

    /// Declares that the store does not keep `law` (`area::law`), and why.
    ///
    /// The law is tested all the same: a deviation that does not show any more fails, so that
    /// the declaration goes.
    pub fn deviates(mut self, law: impl Into<String>, reason: impl Into<String>) -> Self {
        self.deviations.insert(law.into(), reason.into());
        self
    }
}
