use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::profile::LONGEST_KEY;
use crate::{Law, Profile, Time, resolution};

/// What a law came to on a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not.
    Violated {
        /// What was seen.
        observed: String,
        /// The shortest input or history found that shows it.
        #[serde(skip_serializing_if = "Option::is_none")]
        history: Option<String>,
    },
    /// It does not, as the profile declares.
    Deviates {
        /// The declared reason.
        reason: String,
        /// What was seen.
        observed: String,
    },
    /// The profile declares a deviation, and none shows.
    Unfounded {
        /// The declared reason.
        reason: String,
    },
    /// The harness cannot do what the law asks for, so the law is left unproved.
    Unproved {
        /// What it cannot do.
        why: String,
    },
    /// There was no store to try it on: the harness could not open one, or its profile is wrong.
    NotTried {
        /// What was wrong.
        why: String,
    },
}

impl Verdict {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Violated { .. } => "VIOLATED",
            Self::Deviates { .. } => "deviates",
            Self::Unfounded { .. } => "UNFOUNDED",
            Self::Unproved { .. } => "unproved",
            Self::NotTried { .. } => "NOT TRIED",
        }
    }
}

/// One law's part of a [`Report`]; it prints as what a failing test says.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LawReport {
    /// The law.
    #[serde(flatten)]
    pub law: &'static Law,
    /// How many cases or rounds were tried, those of shrinking included.
    pub cases: u64,
    /// How long they took.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub time: Duration,
    /// What its random inputs were made from, see [`Profile::seed`].
    pub seed: u64,
    /// The methods of the harness that it asked for and that were left at their defaults.
    pub defaults: Vec<&'static str>,
    /// What it came to.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl LawReport {
    /// Whether the law holds, deviates as declared, or cannot be proved on this harness.
    #[must_use]
    pub fn is_success(&self) -> bool {
        use Verdict::{Deviates, Holds, Unproved};
        matches!(self.verdict, Holds | Deviates { .. } | Unproved { .. })
    }
}

impl fmt::Display for LawReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Law { id, sentence, .. } = self.law;
        match &self.verdict {
            Verdict::Holds => write!(f, "law `{id}` holds: {sentence}")?,
            Verdict::Violated { observed, history } => {
                writeln!(f, "law `{id}` violated: {sentence}")?;
                writeln!(f, "  observed: {observed}")?;
                if let Some(history) = history {
                    writeln!(f, "  shortest history: {history}")?;
                }
                writeln!(f, "  same inputs again: Profile::seed({})", self.seed)?;
                write!(f, "  if intended: Profile::deviates({id:?}, \"<why>\")")?;
            }
            Verdict::Deviates { reason, observed } => {
                writeln!(f, "law `{id}` deviates as declared: {reason}")?;
                write!(f, "  observed: {observed}")?;
            }
            Verdict::Unfounded { reason } => {
                writeln!(f, "law `{id}` is declared as a deviation ({reason}) but holds")?;
                writeln!(f, "  same inputs again: Profile::seed({})", self.seed)?;
                write!(f, "  remove the declaration: Profile::deviates({id:?}, …)")?;
            }
            Verdict::Unproved { why } => {
                write!(f, "law `{id}` is unproved: {sentence}\n  {why}")?;
            }
            Verdict::NotTried { why } => {
                write!(f, "law `{id}` was not tried, so nothing is known of it\n  {why}")?;
            }
        }
        self.defaults.iter().try_for_each(|default| write!(f, "\n  left at its default: {default}"))
    }
}

/// How a store was tested: part of a [`Report`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct HarnessReport {
    /// Which clock ended the TTLs.
    pub time: Time,
    /// How many random cases a law got.
    pub cases: u32,
    /// How many rounds of contention a law got.
    pub rounds: u32,
    /// What the random inputs were made from, see [`Profile::seed`].
    pub seed: u64,
    /// How much later than asked a TTL might end, see [`Profile::ttl_resolution`].
    #[serde(rename = "ttl_resolution_seconds", serialize_with = "seconds")]
    pub ttl_resolution: Duration,
    /// How long after that it might still show, in real time, see [`Profile::ttl_slack`].
    #[serde(rename = "ttl_slack_seconds", serialize_with = "seconds")]
    pub ttl_slack: Duration,
    /// How many bytes the longest key has, see [`Profile::longest_key`].
    pub longest_key: usize,
    /// Whether the store has no connection that could break, see [`Profile::embedded`].
    pub embedded: bool,
    /// The methods of the harness that laws asked for and that were left at their defaults.
    pub defaults: Vec<&'static str>,
}

impl HarnessReport {
    pub(crate) fn new(time: Time, profile: &Profile, defaults: Vec<&'static str>) -> Self {
        let Profile { cases, rounds, seed, ttl_slack, embedded, .. } = *profile;
        let (ttl_resolution, longest_key) = (profile.promised_resolution(), profile.key_limit());
        Self {
            time,
            cases,
            rounds,
            seed,
            ttl_resolution,
            ttl_slack,
            longest_key,
            embedded,
            defaults,
        }
    }
}

impl fmt::Display for HarnessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cases, rounds, seed, .. } = self;
        let time = match self.time {
            Time::Real => "real",
            Time::Virtual => "virtual",
        };
        write!(f, "tested in {time} time with {cases} cases, {rounds} rounds and seed {seed}")?;
        if self.time == Time::Real {
            write!(f, "\nslack of TTLs: {:?}", self.ttl_slack)?;
        }
        if self.ttl_resolution > resolution::FINEST {
            write!(f, "\ndeclared: TTLs end up to {:?} late", self.ttl_resolution)?;
        }
        if self.longest_key != LONGEST_KEY {
            write!(f, "\ndeclared: the longest key has {} bytes", self.longest_key)?;
        }
        if self.embedded {
            write!(f, "\ndeclared: embedded, without a connection that could break")?;
        }
        self.defaults.iter().try_for_each(|default| write!(f, "\nleft at its default: {default}"))
    }
}

/// What all laws came to on one store.
///
/// It prints as a table, followed by the failures, and serialises for a backend's author to
/// publish.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The version of the suite.
    pub suite: &'static str,
    /// The type of the store.
    pub store: &'static str,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub time: Duration,
    /// How it was tested.
    pub harness: HarnessReport,
    /// Each law, in the order of [`LAWS`](crate::LAWS).
    pub laws: Vec<LawReport>,
}

impl Report {
    pub(crate) fn new(
        store: &'static str,
        harness: HarnessReport,
        laws: Vec<LawReport>,
        time: Duration,
    ) -> Self {
        Self { suite: env!("CARGO_PKG_VERSION"), store, time, harness, laws }
    }

    /// Whether every law holds, deviates as declared, or cannot be proved on this harness.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.failures().next().is_none()
    }

    /// How many laws deviate as declared.
    fn deviations(&self) -> usize {
        self.laws.iter().filter(|law| matches!(law.verdict, Verdict::Deviates { .. })).count()
    }

    /// How many laws the harness left unproved.
    fn unproved(&self) -> usize {
        self.laws.iter().filter(|law| matches!(law.verdict, Verdict::Unproved { .. })).count()
    }

    /// The JSON of an endpoint badge, to be published for shields to show.
    ///
    /// It is green where all laws hold, yellow where some deviate as declared or are unproved, and
    /// red where one is violated, was not tried, or is declared without need.
    #[must_use]
    pub fn badge(&self) -> String {
        let (laws, less) = (self.laws.len(), self.deviations() + self.unproved());
        let holds = laws - less - self.failures().count();
        let color = match (self.is_success(), less) {
            (true, 0) => "brightgreen",
            (true, _) => "yellow",
            (false, _) => "red",
        };
        serde_json::json!({
            "schemaVersion": 1,
            "label": format!("derp-kv laws {}", self.suite),
            "message": format!("{holds} of {laws}"),
            "color": color,
        })
        .to_string()
    }

    /// The laws that are violated or were not tried, and the declared deviations that do not show.
    pub fn failures(&self) -> impl Iterator<Item = &LawReport> {
        self.laws.iter().filter(|law| !law.is_success())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.laws.iter().map(|law| law.law.id.len()).max().unwrap_or(0);
        writeln!(f, "{:width$}  {:>6}  {:>8}  verdict", "law", "cases", "time")?;
        for LawReport { law, cases, time, verdict, .. } in &self.laws {
            let seconds = time.as_secs_f64();
            write!(f, "{:width$}  {cases:>6}  {seconds:>6.2} s  {}", law.id, verdict.name())?;
            match verdict {
                Verdict::Deviates { reason, .. } | Verdict::Unfounded { reason } => {
                    writeln!(f, ": {reason}")?;
                }
                Verdict::Unproved { why } => writeln!(f, ": {why}")?,
                Verdict::Holds | Verdict::Violated { .. } | Verdict::NotTried { .. } => {
                    writeln!(f)?;
                }
            }
        }
        let failures = self.failures().count();
        let (laws, seconds) = (self.laws.len(), self.time.as_secs_f64());
        write!(f, "{} of {laws} laws pass", laws - failures)?;
        match self.deviations() {
            0 => {}
            deviations => write!(f, ", {deviations} of them by deviating as declared,")?,
        }
        match self.unproved() {
            0 => {}
            unproved => write!(f, ", {unproved} of them unproved,")?,
        }
        let (store, suite) = (self.store, self.suite);
        writeln!(f, " on {store} in {seconds:.1} s (derp-kv-conformance {suite})")?;
        write!(f, "{}", self.harness)?;
        // What keeps the harness from opening a store keeps all laws from being tried, and is one
        // failure.
        let mut untried = BTreeMap::<_, usize>::new();
        for failure in self.failures() {
            match &failure.verdict {
                Verdict::NotTried { why } => *untried.entry(why).or_default() += 1,
                _ => write!(f, "\n\n{failure}")?,
            }
        }
        untried.into_iter().try_for_each(|(why, laws)| {
            write!(f, "\n\n{laws} laws were not tried, so nothing is known of them\n  {why}")
        })
    }
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
