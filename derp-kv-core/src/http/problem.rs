use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::operation::Operation;

/// A refusal of a request, for people and for programs: the problem details of
/// [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457).
///
/// It is the answer as data, for any web framework: a status code, [headers](Self::headers) and a
/// JSON [body](Self::body). [`Error::problem`] makes one of an error.
///
/// What it says is sent to the client. It holds no key, no value and no message of the store.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::Problem;
///
/// let problem = Problem::new(503, "Closed for stocktaking")
///     .with_type_uri("https://example.com/problems/stocktaking")
///     .with_retry_after(Duration::from_millis(59_500));
/// assert_eq!(
///     problem.body(),
///     r#"{"type":"https://example.com/problems/stocktaking","title":"Closed for stocktaking","status":503}"#
/// );
/// assert_eq!(
///     problem.headers(),
///     [("content-type", "application/problem+json".to_owned()), ("retry-after", "60".to_owned())]
/// );
/// ```
// Boxed: `Result<String, Problem>` stays small on the path without refusals.
#[derive(Clone, PartialEq, Eq)]
pub struct Problem(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    status_code: u16,
    type_uri: Cow<'static, str>,
    title: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    violated_policies: Vec<String>,
    answer_status: Option<u16>,
}

/// The JSON members, with their names in RFC 9457.
#[derive(Serialize)]
struct Members<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(rename = "violated-policies", skip_serializing_if = "<[String]>::is_empty")]
    violated_policies: &'a [String],
    #[serde(rename = "answer-status", skip_serializing_if = "Option::is_none")]
    answer_status: Option<u16>,
}

/// The header that says when to come back (RFC 9110, section 10.2.3).
pub(crate) const RETRY_AFTER: &str = "retry-after";

/// The type of a problem that says no more than its status code (RFC 9457, section 4.2.1).
const ABOUT_BLANK: &str = "about:blank";

impl Problem {
    /// A problem of the type `about:blank`. The `title` names the kind of the problem, and is the same
    /// each time that it occurs.
    #[must_use]
    pub fn new(status_code: u16, title: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            status_code,
            type_uri: ABOUT_BLANK.into(),
            title: title.into(),
            detail: None,
            retry_after: None,
            violated_policies: Vec::new(),
            answer_status: None,
        }))
    }

    /// Sets the URI that programs tell this kind of problem by, and where people read about it.
    #[must_use]
    pub fn with_type_uri(mut self, type_uri: impl Into<Cow<'static, str>>) -> Self {
        self.0.type_uri = type_uri.into();
        self
    }

    /// Says what is special about this occurrence, to help the client correct it.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Says how long to wait before the next try.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.0.retry_after = Some(retry_after);
        self
    }

    /// Names the quota policies whose quota was exceeded.
    #[must_use]
    pub fn with_violated_policies(
        mut self,
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.0.violated_policies = names.into_iter().map(Into::into).collect();
        self
    }

    /// Says which status code the answer had that the client does not get.
    #[must_use]
    pub fn with_answer_status(mut self, status_code: u16) -> Self {
        self.0.answer_status = Some(status_code);
        self
    }

    /// The HTTP status code.
    #[must_use]
    pub fn status_code(&self) -> u16 {
        self.0.status_code
    }

    /// The URI of this kind of problem.
    #[must_use]
    pub fn type_uri(&self) -> &str {
        &self.0.type_uri
    }

    /// The name of this kind of problem.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.0.title
    }

    /// What is special about this occurrence.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// How long to wait before the next try, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The names of the quota policies whose quota was exceeded.
    #[must_use]
    pub fn violated_policies(&self) -> &[String] {
        &self.0.violated_policies
    }

    /// The status code of an answer that the client does not get: the member `answer-status`.
    #[must_use]
    pub fn answer_status(&self) -> Option<u16> {
        self.0.answer_status
    }

    /// The media type of the [body](Self::body).
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        "application/problem+json"
    }

    /// The headers that belong to the answer: `content-type`, and `retry-after` in whole seconds,
    /// rounded up, where it is known.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("content-type", self.content_type().to_owned())];
        if let Some(retry_after) = self.retry_after() {
            headers.push((RETRY_AFTER, whole_seconds(retry_after).to_string()));
        }
        headers
    }

    /// The body of the answer, which is JSON.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let members = Members {
            r#type: self.type_uri(),
            title: self.title(),
            status: self.status_code(),
            detail: self.detail(),
            violated_policies: self.violated_policies(),
            answer_status: self.answer_status(),
        };
        // Strings and a number: JSON has words for all of them.
        serde_json::to_vec(&members).unwrap_or_default().into()
    }
}

/// A duration in whole seconds, rounded up: who waits that long is never early.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status_code(), self.title())?;
        self.detail().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            status_code,
            type_uri,
            title,
            detail,
            retry_after,
            violated_policies,
            answer_status,
        } = &*self.0;
        f.debug_struct("Problem")
            .field("status_code", status_code)
            .field("type_uri", type_uri)
            .field("title", title)
            .field("detail", detail)
            .field("retry_after", retry_after)
            .field("violated_policies", violated_policies)
            .field("answer_status", answer_status)
            .finish()
    }
}

impl StdError for Problem {}

/// When to come back where the store fails and nobody knows for how long: soon enough for a short
/// outage, and not so soon that clients add to a long one.
pub(crate) const STORE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Where the kinds of errors are explained, which makes it their type.
macro_rules! documented {
    ($kind:literal) => {
        concat!(
            "https://docs.rs/derp-kv-core/latest/derp_kv_core/enum.ErrorKind.html#variant.",
            $kind
        )
    };
}

impl Error {
    /// What to tell the client of a request that met this error.
    ///
    /// | kind | status code | title |
    /// |---|---|---|
    /// | [`InProgress`](ErrorKind::InProgress) | 409, `retry-after` | A request is outstanding for this Idempotency-Key; of `process_once`: The event is being processed |
    /// | [`KeyReused`](ErrorKind::KeyReused) | 422 | Idempotency-Key is already used |
    /// | [`NotKept`](ErrorKind::NotKept) | 409 | The request is done and its answer was not kept |
    /// | [`Abandoned`](ErrorKind::Abandoned) | 409, `retry-after` where it is transient | An earlier attempt was abandoned |
    /// | [`InvalidArgument`](ErrorKind::InvalidArgument) | 400 | Bad Request |
    /// | [`Failing`](ErrorKind::Failing), [`Held`](ErrorKind::Held), [`Unavailable`](ErrorKind::Unavailable), [`Timeout`](ErrorKind::Timeout) | 503, `retry-after` | Service Unavailable |
    /// | [`ReadOnly`](ErrorKind::ReadOnly), [`Full`](ErrorKind::Full), [`AccessDenied`](ErrorKind::AccessDenied), [`Backend`](ErrorKind::Backend) | 503 | Service Unavailable |
    /// | all others | 500 | Internal Server Error |
    ///
    /// The first two titles are those of
    /// [draft-ietf-httpapi-idempotency-key-header-06](https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header-06). The types of the
    /// first four are the addresses of their documentation here; name your own with
    /// [`with_type_uri`](Problem::with_type_uri). That of `NotKept` has the
    /// [status code](Self::status_code) of the answer as its member `answer-status`. `retry-after` is the error's
    /// [`retry_after`](Self::retry_after), and at least a second; where it has none and is
    /// [transient](Self::is_transient), 5 seconds.
    ///
    /// `InvalidArgument` is taken for the client's fault, because an id or a key of its making is what
    /// differs between calls. Where it is a mistake in the options, the client is blamed for it.
    ///
    /// Nothing of the error's message is told.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_core::{Error, ErrorKind};
    ///
    /// let problem = Error::new(ErrorKind::Timeout, "no answer within 2s").problem();
    /// assert_eq!(problem.status_code(), 503);
    /// assert_eq!(problem.headers()[1], ("retry-after", "5".to_owned()));
    /// ```
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut problem = match self.kind() {
            // An event has no idempotency key of its sender's.
            ErrorKind::InProgress if self.operation() == Some(Operation::ProcessOnce) => {
                Problem::new(409, "The event is being processed")
                    .with_type_uri(documented!("InProgress"))
                    .with_detail("Another delivery of the same event is being processed.")
            }
            ErrorKind::InProgress => {
                Problem::new(409, "A request is outstanding for this Idempotency-Key")
                    .with_type_uri(documented!("InProgress"))
                    .with_detail("A request with the same Idempotency-Key is being processed.")
            }
            ErrorKind::KeyReused => Problem::new(422, "Idempotency-Key is already used")
                .with_type_uri(documented!("KeyReused"))
                .with_detail("The same Idempotency-Key was used for another request."),
            ErrorKind::NotKept => {
                Problem::new(409, "The request is done and its answer was not kept")
                    .with_type_uri(documented!("NotKept"))
                    .with_detail(self.status_code().map_or_else(
                        || "The request was carried out, and is not carried out again.".into(),
                        |status_code| {
                            Cow::from(format!(
                                "The request was carried out with status {status_code}, and is not \
                             carried out again."
                            ))
                        },
                    ))
            }
            ErrorKind::Abandoned => Problem::new(409, "An earlier attempt was abandoned")
                .with_type_uri(documented!("Abandoned"))
                .with_detail("It is not known how far the request was carried out."),
            ErrorKind::InvalidArgument => Problem::new(400, "Bad Request"),
            ErrorKind::Failing
            | ErrorKind::Held
            | ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::ReadOnly
            | ErrorKind::Full
            | ErrorKind::AccessDenied
            | ErrorKind::Backend => Problem::new(503, "Service Unavailable"),
            _ => Problem::new(500, "Internal Server Error"),
        };
        if let Some(status_code) = self.status_code() {
            problem = problem.with_answer_status(status_code);
        }
        if problem.detail().is_none() && self.may_have_applied() {
            problem = problem.with_detail("It is not known whether the request was carried out.");
        }
        let unknown = || self.is_transient().then_some(STORE_RETRY_AFTER);
        match self.retry_after().or_else(unknown) {
            // At once would be a herd.
            Some(retry_after) => problem.with_retry_after(retry_after.max(Duration::from_secs(1))),
            None => problem,
        }
    }
}
