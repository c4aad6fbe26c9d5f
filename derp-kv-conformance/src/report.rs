use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::Law;

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
}

impl Verdict {
    fn name(&self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Violated { .. } => "VIOLATED",
            Self::Deviates { .. } => "deviates",
            Self::Unfounded { .. } => "UNFOUNDED",
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
    /// What it came to.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl LawReport {
    /// Whether the law holds, or deviates as declared.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self.verdict, Verdict::Holds | Verdict::Deviates { .. })
    }
}

impl fmt::Display for LawReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Law { id, sentence, .. } = self.law;
        match &self.verdict {
            Verdict::Holds => write!(f, "law `{id}` holds: {sentence}"),
            Verdict::Violated { observed, history } => {
                writeln!(f, "law `{id}` violated: {sentence}")?;
                writeln!(f, "  observed: {observed}")?;
                if let Some(history) = history {
                    writeln!(f, "  shortest history: {history}")?;
                }
                write!(f, "  if intended: Profile::deviates({id:?}, \"<why>\")")
            }
            Verdict::Deviates { reason, observed } => {
                writeln!(f, "law `{id}` deviates as declared: {reason}")?;
                write!(f, "  observed: {observed}")
            }
            Verdict::Unfounded { reason } => {
                writeln!(f, "law `{id}` is declared as a deviation ({reason}) but holds")?;
                write!(f, "  remove the declaration: Profile::deviates({id:?}, …)")
            }
        }
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
    /// Each law, in the order of [`LAWS`](crate::LAWS).
    pub laws: Vec<LawReport>,
}

impl Report {
    pub(crate) fn new<S>(laws: Vec<LawReport>, time: Duration) -> Self {
        let store = std::any::type_name::<S>();
        Self { suite: env!("CARGO_PKG_VERSION"), store, time, laws }
    }

    /// Whether every law holds, or deviates as declared.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.failures().next().is_none()
    }

    /// How many laws deviate as declared.
    fn deviations(&self) -> usize {
        self.laws.iter().filter(|law| matches!(law.verdict, Verdict::Deviates { .. })).count()
    }

    /// The JSON of an endpoint badge, to be published for shields to show.
    ///
    /// It is green where all laws hold, yellow where some deviate as declared, and red where one
    /// is violated or declared without need.
    #[must_use]
    pub fn badge(&self) -> String {
        let (laws, deviations) = (self.laws.len(), self.deviations());
        let holds = laws - deviations - self.failures().count();
        let color = match (self.is_success(), deviations) {
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

    /// The laws that are violated, and the declared deviations that do not show.
    pub fn failures(&self) -> impl Iterator<Item = &LawReport> {
        self.laws.iter().filter(|law| !law.is_success())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.laws.iter().map(|law| law.law.id.len()).max().unwrap_or(0);
        writeln!(f, "{:width$}  {:>6}  {:>8}  verdict", "law", "cases", "time")?;
        for LawReport { law, cases, time, verdict } in &self.laws {
            let seconds = time.as_secs_f64();
            write!(f, "{:width$}  {cases:>6}  {seconds:>6.2} s  {}", law.id, verdict.name())?;
            match verdict {
                Verdict::Deviates { reason, .. } | Verdict::Unfounded { reason } => {
                    writeln!(f, ": {reason}")?;
                }
                Verdict::Holds | Verdict::Violated { .. } => writeln!(f)?,
            }
        }
        let failures = self.failures().count();
        let (laws, seconds) = (self.laws.len(), self.time.as_secs_f64());
        write!(f, "{} of {laws} laws pass", laws - failures)?;
        match self.deviations() {
            0 => {}
            deviations => write!(f, ", {deviations} of them by deviating as declared,")?,
        }
        let (store, suite) = (self.store, self.suite);
        write!(f, " on {store} in {seconds:.1} s (derp-kv-conformance {suite})")?;
        for failure in self.failures() {
            write!(f, "\n\n{failure}")?;
        }
        Ok(())
    }
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
