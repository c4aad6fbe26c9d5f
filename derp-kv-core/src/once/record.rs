use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};
use crate::once::options::Idempotency;
use crate::operation::Operation;

const OPERATION: Operation = Operation::IdempotentExecute;

/// How the body of a [`Reply`](crate::Reply) stands in its record.
pub(crate) const JSON: &str = "json";
pub(crate) const BASE64: &str = "base64";

/// What a request with an idempotency key came to, now or before.
///
/// A replay's body is the one of the first call, decoded from its record: numbers to the last bit,
/// and what JSON has no word for was refused on the first call. Only the order of a hash map or
/// set may be another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome<T> {
    /// What the work returned.
    pub body: T,
    /// The status code that was kept with it.
    pub status_code: u16,
    /// Whether the work ran earlier, or for another caller.
    pub is_replay: bool,
}

impl<T> Outcome<T> {
    pub(crate) fn new(body: T, status_code: u16, is_replay: bool) -> Self {
        Self { body, status_code, is_replay }
    }
}

/// The record as it is stored; readers ignore fields that they do not know.
#[derive(Serialize)]
struct NewRecord<'a, B: ?Sized> {
    status_code: u16,
    body: &'a B,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Vec<(&'a str, String)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<&'a str>,
}

/// What only the record of a [`Reply`](crate::Reply) has.
#[derive(Default)]
pub(crate) struct Extras<'a> {
    pub(crate) headers: Option<Vec<(&'a str, String)>>,
    pub(crate) encoding: Option<&'static str>,
}

/// A record as it is read. What only one type of body needs is left as it is for that type to decode:
/// another library may use the same names for something else.
#[derive(Debug, serde::Deserialize)]
pub struct StoredRecord<'a> {
    pub(crate) status_code: u16,
    #[serde(borrow)]
    body: &'a RawValue,
    /// Whether the work was done and its body is not here.
    #[serde(borrow, default)]
    omitted: Option<&'a RawValue>,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
    #[serde(borrow, default)]
    encoding: Option<&'a RawValue>,
    pub(crate) fingerprint: Option<String>,
}

pub(crate) fn write<B: Serialize + ?Sized>(
    status_code: u16,
    body: &B,
    Extras { headers, encoding }: Extras<'_>,
    options: &Idempotency,
) -> serde_json::Result<Vec<u8>> {
    let fingerprint = options.fingerprint.as_deref();
    serde_json::to_vec(&NewRecord { status_code, body, headers, encoding, fingerprint })
}

/// The record of work that is done and whose body cannot be kept: it stands between the work and
/// its repetition.
pub(crate) fn omitted(status_code: u16, options: &Idempotency) -> Bytes {
    // A fingerprint is made of hexadecimal digits, which JSON takes as they are.
    let fingerprint = options.fingerprint.as_deref();
    let fingerprint = fingerprint.map(|hex| format!(r#","fingerprint":"{hex}""#));
    let fingerprint = fingerprint.unwrap_or_default();
    format!(r#"{{"status_code":{status_code},"body":null,"omitted":true{fingerprint}}}"#).into()
}

/// The store took the small record in the place of the one that holds the body.
pub(crate) fn refused_by_store(status_code: u16, refusal: Error) -> Error {
    let message = "the work is done, and its answer was not kept: the store did not take its \
                   record. It would keep a smaller body, or needs more room";
    not_kept(status_code, message).with_source(refusal)
}

pub(crate) fn not_kept(status_code: u16, message: &'static str) -> Error {
    Error::new(ErrorKind::NotKept, message)
        .with_operation(OPERATION)
        .with_may_have_applied(true)
        .with_status_code(status_code)
}

impl<'a> StoredRecord<'a> {
    pub(crate) fn parse(record: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(record)
    }

    pub(crate) fn decode(record: &'a [u8]) -> Result<Self> {
        Self::parse(record).map_err(|error| {
            corrupt("the record cannot be decoded; it is left as it is")
                .with_source(redacted(&error))
        })
    }

    /// Whether the work was done and its answer is here.
    ///
    /// # Errors
    ///
    /// [`NotKept`](ErrorKind::NotKept) where it is not.
    pub(crate) fn check_kept(&self) -> Result<()> {
        if self.omitted.is_some_and(|omitted| omitted.get() == "true") {
            let message = "the work was done by an earlier call, and its answer was not kept; it \
                           is not done again";
            return Err(not_kept(self.status_code, message));
        }
        Ok(())
    }

    pub(crate) fn raw_body(&self) -> &'a str {
        self.body.get()
    }

    pub(crate) fn body<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.body.get())
    }

    /// None also where it is no text.
    pub(crate) fn encoding(&self) -> Option<Cow<'a, str>> {
        serde_json::from_str(self.encoding?.get()).ok()
    }

    pub(crate) fn headers(&self) -> Result<Vec<(String, String)>> {
        let headers = self.headers.map(|headers| serde_json::from_str(headers.get()));
        Ok(headers.transpose().map_err(|error| another_type(&error))?.unwrap_or_default())
    }
}

pub(crate) fn corrupt(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, what).with_operation(OPERATION)
}

pub(crate) fn another_type(error: &serde_json::Error) -> Error {
    corrupt("the record's body is of another type").with_source(redacted(error))
}

pub(crate) fn redacted(error: &serde_json::Error) -> impl std::error::Error + Send + Sync + use<> {
    Redacted { category: error.classify(), line: error.line(), column: error.column() }
}

/// Where JSON went wrong, without the values that serde's messages quote.
#[derive(Debug)]
struct Redacted {
    category: serde_json::error::Category,
    line: usize,
    column: usize,
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { category, line, column } = self;
        match line {
            // What is being written has no lines yet, and whatever stops it is of one category.
            0 => f.write_str("the value is none that JSON can hold"),
            _ => write!(f, "{category:?} error at line {line}, column {column}"),
        }
    }
}

impl std::error::Error for Redacted {}
