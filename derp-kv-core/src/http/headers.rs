//! What a rate limit tells a client in the headers of a response.

use std::fmt::Write;
use std::time::Duration;

use crate::http::problem::{Problem, RETRY_AFTER, STORE_RETRY_AFTER, whole_seconds};
use crate::observe::decided_by::DecidedBy;
use crate::rate_limit::limit::{Promise, RateLimit, Rule};
use crate::rate_limit::status::RateLimitStatus;

/// The names of the headers, as HTTP/2 has them.
pub(crate) const RATE_LIMIT_POLICY: &str = "ratelimit-policy";
pub(crate) const RATE_LIMIT: &str = "ratelimit";

/// The largest integer of a structured field (RFC 9651, section 3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// Which revision of a document that is not yet a standard the headers are written by.
///
/// A later revision will be a variant of its own, so that an update of this crate changes no header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeaderRevision {
    /// [draft-ietf-httpapi-ratelimit-headers-10](https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-10):
    /// `RateLimit-Policy` with `q` and `w`, `RateLimit` with `r` and `t`. Revision 11 has the same.
    #[default]
    RateLimitDraft10,
}

/// What clients are told of a [`RateLimit`]: the names of its quota policies, and their numbers.
///
/// Make one for each limit and keep it: the value of `RateLimit-Policy` is written once.
/// [`RateLimitStatus::headers`] and [`RateLimitStatus::problem`] take it.
///
/// # What the numbers are
///
/// | limit | `q` | `w` |
/// |---|---|---|
/// | [`new`](RateLimit::new), [`strict`](RateLimit::strict) | the limit | the window |
/// | [`smooth`](RateLimit::smooth) | the burst | the time in which a whole burst comes back |
///
/// `w` is in whole seconds, rounded up, which is the side where a client asks less. It is left out where
/// it would be less than one second: a second in its place would tell a multiple of the time. No number
/// is above 999,999,999,999,999, where the integers of structured fields end.
///
/// A client may spend all of `r` at once, and may take `r / t` for a rate that goes on. Where a window
/// is long and its whole quota at once would hurt, put a shorter one beside it with
/// [`RateLimit::all`], as the draft advises. The partition key `pk` is not sent: it would tell the
/// client's id.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::{QuotaPolicies, RateLimit};
///
/// const MINUTE: Duration = Duration::from_secs(60);
/// let limit = RateLimit::all([RateLimit::strict(100, MINUTE), RateLimit::strict(1000, 1440 * MINUTE)]);
/// let policies = QuotaPolicies::new(&limit, "orders").names(["burst", "daily"]);
/// assert_eq!(policies.header(), Some(r#""burst";q=100;w=60, "daily";q=1000;w=86400"#));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaPolicies {
    revision: HeaderRevision,
    policies: Vec<Policy>,
    /// The value of `RateLimit-Policy`.
    header: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Policy {
    name: String,
    quota: u64,
    /// In seconds.
    window: Option<u64>,
}

impl QuotaPolicies {
    /// The policies of `limit`: one of this name, and of [several limits](RateLimit::all) one each, in
    /// their order, with the names `name-1`, `name-2` and so on.
    ///
    /// A name has printable ASCII characters. Any other is written as `_`, because a header cannot hold
    /// it.
    #[must_use]
    pub fn new(limit: &RateLimit, name: &str) -> Self {
        let rules = limit.rules();
        let policies = rules.iter().zip(1_u8..).map(|(rule, number)| {
            let name = printable(name);
            let name = if rules.len() == 1 { name } else { format!("{name}-{number}") };
            Policy { name, quota: rule.most(), window: window(rule) }
        });
        let mut policies = Self {
            revision: HeaderRevision::default(),
            policies: policies.collect(),
            header: String::new(),
        };
        policies.write();
        policies
    }

    /// Gives the limits of [`RateLimit::all`] names of their own, in their order.
    #[must_use]
    pub fn names(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for (policy, name) in self.policies.iter_mut().zip(names) {
            policy.name = printable(name.as_ref());
        }
        self.write();
        self
    }

    /// Sets the revision that the headers are written by.
    #[must_use]
    pub fn revision(mut self, revision: HeaderRevision) -> Self {
        self.revision = revision;
        self.write();
        self
    }

    /// The value of `RateLimit-Policy`. None where the limit has a mistake and so no policy.
    #[must_use]
    pub fn header(&self) -> Option<&str> {
        Some(&*self.header).filter(|header| !header.is_empty())
    }

    /// The value of `RateLimit`, if anything is known that it can tell.
    pub(crate) fn remaining(&self, status: &RateLimitStatus) -> Option<String> {
        let mut header = String::with_capacity(48);
        for (policy, standing) in self.policies.iter().zip(status.each()) {
            let known = match status.source {
                // Nobody counted. Of nothing, nothing remains: that is known all the same.
                DecidedBy::Policy => policy.quota == 0,
                // A share of the limit was counted, which the policy does not tell.
                DecidedBy::Local => false,
                // `Retry-After` is when the limits that failed let the call pass. Of the others more
                // may come back later than that, and `t` is not to be later than `Retry-After`.
                _ => status.allowed || !standing.fits,
            };
            if known {
                policy.write_name(&mut header);
                integer(&mut header, 'r', standing.remaining);
                if let Some(next_after) = standing.next_after {
                    integer(&mut header, 't', whole_seconds(next_after));
                }
            }
        }
        Some(header).filter(|header| !header.is_empty())
    }

    /// The names of the policies whose quota the call exceeded.
    fn violated<'a>(&'a self, status: &'a RateLimitStatus) -> impl Iterator<Item = &'a Policy> {
        let violated = |(place, fits): (usize, bool)| match status.source {
            // Nobody counted: which limit it was is known where one lets nothing pass.
            DecidedBy::Policy => status.violated == Some(place),
            _ => !fits,
        };
        let places = status.each().iter().map(|standing| standing.fits).enumerate();
        let policies = self.policies.iter().zip(places);
        policies.filter(move |(_, place)| violated(*place)).map(|(policy, _)| policy)
    }

    fn write(&mut self) {
        let mut header = String::new();
        match self.revision {
            HeaderRevision::RateLimitDraft10 => {
                for policy in &self.policies {
                    policy.write_name(&mut header);
                    integer(&mut header, 'q', policy.quota);
                    if let Some(window) = policy.window {
                        integer(&mut header, 'w', window);
                    }
                }
            }
        }
        self.header = header;
    }
}

impl Policy {
    /// Begins the next member of the list with the name, as a string of a structured field.
    fn write_name(&self, header: &mut String) {
        header.push_str(if header.is_empty() { "\"" } else { ", \"" });
        for character in self.name.chars() {
            if matches!(character, '"' | '\\') {
                header.push('\\');
            }
            header.push(character);
        }
        header.push('"');
    }
}

fn printable(name: &str) -> String {
    name.chars().map(|c| if matches!(c, ' '..='~') { c } else { '_' }).collect()
}

fn integer(header: &mut String, name: char, value: u64) {
    // Writing into a `String` does not fail.
    let _ = write!(header, ";{name}={}", value.min(MAX_INTEGER));
}

/// In how many seconds the whole quota comes back.
fn window(rule: &Rule) -> Option<u64> {
    let nanos = match rule.promise {
        Promise::Fixed | Promise::Strict => rule.window.as_nanos(),
        Promise::Smooth => {
            // As the limit itself has it: the time of a unit is rounded up to a nanosecond.
            let unit = rule.window.as_nanos().div_ceil(u128::from(rule.limit.max(1)));
            unit.saturating_mul(u128::from(rule.most()))
        }
    };
    const SECOND: u128 = Duration::from_secs(1).as_nanos();
    let seconds = u64::try_from(nanos.div_ceil(SECOND)).unwrap_or(u64::MAX);
    (nanos >= SECOND).then_some(seconds)
}

impl RateLimitStatus {
    /// The headers that tell a client how it stands, with names in lower case:
    ///
    /// * `ratelimit-policy`, always;
    /// * `ratelimit`, with what remains (`r`) and in how many seconds more does (`t`, rounded up). An
    ///   allowed call is told all limits, a denied one those that it exceeded. It is left out where
    ///   [nobody counted](DecidedBy::Policy), because then nothing is known but that of a limit of 0
    ///   nothing remains, and where [this process](DecidedBy::Local) counted, a share of the limit;
    /// * `retry-after` of a denied call, in whole seconds, rounded up: never earlier than
    ///   [`retry_after`](Self::retry_after), nor than any `t` beside it. It is left out where the call
    ///   will never be allowed, and where nobody knows.
    ///
    /// `policies` are those of the limit that gave this status.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::{KvStoreExt, QuotaPolicies, RateLimit};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let limit = RateLimit::new(1, Duration::from_secs(60));
    /// let policies = QuotaPolicies::new(&limit, "checkout");
    /// kv.rate_limit("checkout:ada", &limit).await?;
    /// let denied = kv.rate_limit("checkout:ada", &limit).await?;
    /// assert_eq!(
    ///     denied.headers(&policies),
    ///     [
    ///         ("ratelimit-policy", r#""checkout";q=1;w=60"#.to_owned()),
    ///         ("ratelimit", r#""checkout";r=0;t=60"#.to_owned()),
    ///         ("retry-after", "60".to_owned()),
    ///     ]
    /// );
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn headers(&self, policies: &QuotaPolicies) -> Vec<(&'static str, String)> {
        let policy = policies.header().map(|header| (RATE_LIMIT_POLICY, header.to_owned()));
        let remaining = policies.remaining(self).map(|header| (RATE_LIMIT, header));
        let retry_after = self.retry_after.filter(|_| !self.allowed);
        let retry_after = retry_after.map(|left| (RETRY_AFTER, whole_seconds(left).to_string()));
        [policy, remaining, retry_after].into_iter().flatten().collect()
    }

    /// What to answer a client whose call is denied.
    ///
    /// It is the draft's problem type `quota-exceeded` (429), with the names of the policies whose quota
    /// was exceeded. Where the store failed, and the call is denied without having been counted, it is
    /// the draft's `temporary-reduced-capacity` (503), which is to be tried again in 5 seconds.
    ///
    /// `policies` are those of the limit that gave this status.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::{KvStoreExt, QuotaPolicies, RateLimit};
    /// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let limit = RateLimit::new(0, Duration::from_secs(60));
    /// let denied = kv.rate_limit("checkout:ada", &limit).await?;
    /// let problem = denied.problem(&QuotaPolicies::new(&limit, "checkout"));
    /// assert_eq!((problem.status_code(), problem.violated_policies()), (429, &["checkout".into()][..]));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn problem(&self, policies: &QuotaPolicies) -> Problem {
        let violated: Vec<_> = policies.violated(self).collect();
        let counted = self.source != DecidedBy::Policy;
        let never = violated.iter().any(|policy| policy.quota == 0);
        let names = violated.iter().map(|policy| &*policy.name);
        if counted || never {
            let title = "Request cannot be satisfied as assigned quota has been exceeded";
            let problem = Problem::new(429, title)
                .with_type_uri("https://iana.org/assignments/http-problem-types#quota-exceeded")
                .with_violated_policies(names);
            match self.retry_after {
                Some(retry_after) => problem.with_retry_after(retry_after),
                None => problem,
            }
        } else {
            reduced_capacity().with_violated_policies(names)
        }
    }
}

/// The answer where the store failed and nobody counted.
pub(crate) fn reduced_capacity() -> Problem {
    Problem::new(503, "Request cannot be satisfied due to temporary server capacity constraints")
        .with_type_uri("https://iana.org/assignments/http-problem-types#temporary-reduced-capacity")
        .with_retry_after(STORE_RETRY_AFTER)
}
