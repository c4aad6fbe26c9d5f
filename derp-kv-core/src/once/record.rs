use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};
use crate::once::options::Idempotency;
use crate::once::shape::shape;
use crate::operation::Operation;

const OPERATION: Operation = Operation::IdempotentExecute;

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

/// The record as it is stored; readers ignore fields that they do not know.
#[derive(Serialize)]
struct NewRecord<'a, T> {
    status_code: u16,
    body: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<&'a str>,
}

#[derive(serde::Deserialize)]
pub(crate) struct StoredRecord<'a> {
    status_code: u16,
    #[serde(borrow)]
    body: &'a RawValue,
    /// Whether the work was done and its body is not here.
    #[serde(default)]
    omitted: Option<bool>,
    pub(crate) fingerprint: Option<String>,
}

/// Makes the record of work that is done, which replays as `body`.
///
/// # Errors
///
/// [`NotKept`](ErrorKind::NotKept) where no record does.
pub(crate) fn encode<T>(body: &T, options: &Idempotency) -> Result<Bytes>
where
    T: Serialize + DeserializeOwned,
{
    // A panic here must not free the key: the work is done. Nothing but the body can be left
    // half-way, and it is not used again.
    catch_unwind(AssertUnwindSafe(|| try_encode(body, options))).unwrap_or_else(|_| {
        let message = "the work is done, and its answer was not kept: to serialize its body, or to \
                       deserialize it, panics";
        Err(not_kept(options.status_code, message))
    })
}

fn try_encode<T>(body: &T, options: &Idempotency) -> Result<Bytes>
where
    T: Serialize + DeserializeOwned,
{
    let record = write(body, options).map_err(|error| {
        let message = "the work is done, and its answer was not kept: its body cannot be written \
                       as JSON, which has text in UTF-8, and maps whose keys are text, numbers or \
                       booleans";
        not_kept(options.status_code, message).with_source(Redacted::from(&error))
    })?;
    let again = read(&record).map_err(|error| {
        let message = "the work is done, and its answer was not kept: its body cannot be read back \
                       from its JSON. Nothing in it may be a number that is not finite, a field \
                       that is read and never written, nested in more than 127 levels, or, below a \
                       flattened field or a tagged enum, a 128-bit integer or a map with keys that \
                       are no text";
        not_kept(options.status_code, message).with_source(Redacted::from(&error))
    })?;
    if !is_replay_of(&again, body, options, &record) {
        let message = "the work is done, and its answer was not kept: the body that is read back \
                       from its JSON is another one. JSON has one `null` for `None`, `Some(None)`, \
                       `Some(())` and numbers that are not finite, and does not name the variants \
                       of an untagged enum";
        return Err(not_kept(options.status_code, message));
    }
    Ok(Bytes::from(record))
}

/// Whether `again`, which was read back from `record`, is what `body` was.
fn is_replay_of<T: Serialize>(again: &T, body: &T, options: &Idempotency, record: &[u8]) -> bool {
    let before = shape(body);
    if before.is_some() && shape(again) == before {
        return true;
    }
    // A body that is serialized otherwise each time, such as one that tells its age, cannot be
    // compared; it was written and read, and that must do.
    before.is_none()
        || shape(body) != before
        || write(body, options).is_ok_and(|written| written != record)
}

fn write<T: Serialize>(body: &T, options: &Idempotency) -> serde_json::Result<Vec<u8>> {
    let fingerprint = options.fingerprint.as_deref();
    serde_json::to_vec(&NewRecord { status_code: options.status_code, body, fingerprint })
}

fn read<T: DeserializeOwned>(record: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice::<StoredRecord<'_>>(record)?.body()
}

/// The record of work that is done and whose body cannot be kept: it stands between the work and
/// its repetition.
pub(crate) fn omitted(options: &Idempotency) -> Bytes {
    // A fingerprint is made of hexadecimal digits, which JSON takes as they are.
    let fingerprint = options.fingerprint.as_deref();
    let fingerprint = fingerprint.map(|hex| format!(r#","fingerprint":"{hex}""#));
    let (status_code, fingerprint) = (options.status_code, fingerprint.unwrap_or_default());
    format!(r#"{{"status_code":{status_code},"body":null,"omitted":true{fingerprint}}}"#).into()
}

/// The store took the small record in the place of the one that holds the body.
pub(crate) fn refused_by_store(options: &Idempotency, refusal: Error) -> Error {
    let message = "the work is done, and its answer was not kept: the store did not take its \
                   record. It would keep a smaller body, or needs more room";
    not_kept(options.status_code, message).with_source(refusal)
}

fn not_kept(status_code: u16, message: &'static str) -> Error {
    Error::new(ErrorKind::NotKept, message)
        .with_operation(OPERATION)
        .with_may_have_applied(true)
        .with_status_code(status_code)
}

impl<'a> StoredRecord<'a> {
    pub(crate) fn decode(record: &'a [u8]) -> Result<Self> {
        serde_json::from_slice(record)
            .map_err(|error| corrupt("the record cannot be decoded; it is left as it is", &error))
    }

    pub(crate) fn outcome<T: DeserializeOwned>(&self) -> Result<Outcome<T>> {
        if self.omitted == Some(true) {
            let message = "the work was done by an earlier call, and its answer was not kept; it \
                           is not done again";
            return Err(not_kept(self.status_code, message));
        }
        let body =
            self.body().map_err(|error| corrupt("the record's body is of another type", &error))?;
        Ok(Outcome { body, status_code: self.status_code, is_replay: true })
    }

    fn body<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.body.get())
    }
}

fn corrupt(what: &'static str, error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, what)
        .with_operation(OPERATION)
        .with_source(Redacted::from(error))
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

impl From<&serde_json::Error> for Redacted {
    fn from(error: &serde_json::Error) -> Self {
        Self { category: error.classify(), line: error.line(), column: error.column() }
    }
}
