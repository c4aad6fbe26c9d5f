use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::error::Result;
use crate::once::base64;
use crate::once::options::Idempotency;
use crate::once::record::{
    BASE64, Extras, JSON, StoredRecord, another_type, corrupt, not_kept, redacted, write,
};
use crate::once::reply::Reply;
use crate::once::shape::shape;

/// The deepest JSON that stands in a record as it is: serde_json reads 127 levels, of which the record
/// itself is one.
const DEEPEST: usize = 126;

/// What an idempotent call can answer, and replay: every type that serde can write and read, and
/// [`Reply`], a whole response.
///
/// It cannot be implemented for other types: implement serde's traits.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be replayed from a record",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or answer with a `Reply`"
)]
pub trait Answer: Recorded {}

impl<T: Recorded> Answer for T {}

/// How an answer is kept.
pub trait Recorded: Sized {
    /// The status code that is kept with it.
    fn status_code(&self, options: &Idempotency) -> u16;

    /// Whether the work ends with it. Otherwise the key is free again.
    fn is_final(&self, options: &Idempotency) -> bool;

    /// Makes the record that replays as this answer. Where none does, the error is
    /// [`NotKept`](crate::ErrorKind::NotKept).
    fn encode(&self, options: &Idempotency) -> Result<Bytes>;

    /// Reads the answer back.
    fn decode(record: &StoredRecord<'_>) -> Result<Self>;
}

impl<T: Serialize + DeserializeOwned> Recorded for T {
    fn status_code(&self, options: &Idempotency) -> u16 {
        options.status_code
    }

    fn is_final(&self, _: &Idempotency) -> bool {
        true
    }

    fn encode(&self, options: &Idempotency) -> Result<Bytes> {
        // A panic here must not free the key: the work is done. Nothing but the answer can be left
        // half-way, and it is not used again.
        catch_unwind(AssertUnwindSafe(|| encode_checked(self, options))).unwrap_or_else(|_| {
            let message = "the work is done, and its answer was not kept: to serialize its body, or \
                           to deserialize it, panics";
            Err(not_kept(options.status_code, message))
        })
    }

    fn decode(record: &StoredRecord<'_>) -> Result<Self> {
        if record.encoding().as_deref() == Some(BASE64) {
            return Err(corrupt("the record's body is not JSON: it is one for a `Reply`"));
        }
        record.body().map_err(|error| another_type(&error))
    }
}

fn encode_checked<T: Serialize + DeserializeOwned>(
    body: &T,
    options: &Idempotency,
) -> Result<Bytes> {
    let status_code = options.status_code;
    let record = write(status_code, body, Extras::default(), options).map_err(|error| {
        let message = "the work is done, and its answer was not kept: its body cannot be written \
                       as JSON, which has text in UTF-8, and maps whose keys are text, numbers or \
                       booleans";
        not_kept(status_code, message).with_source(redacted(&error))
    })?;
    let again: T = StoredRecord::parse(&record).and_then(|record| record.body()).map_err(|error| {
        let message = "the work is done, and its answer was not kept: its body cannot be read back \
                       from its JSON. Nothing in it may be a number that is not finite, a field \
                       that is read and never written, nested in more than 127 levels, or, below a \
                       flattened field or a tagged enum, a 128-bit integer or a map with keys that \
                       are no text";
        not_kept(status_code, message).with_source(redacted(&error))
    })?;
    if !is_replay_of(&again, body, options, &record) {
        let message = "the work is done, and its answer was not kept: the body that is read back \
                       from its JSON is another one. JSON has one `null` for `None`, `Some(None)`, \
                       `Some(())` and numbers that are not finite, and does not name the variants \
                       of an untagged enum";
        return Err(not_kept(status_code, message));
    }
    Ok(record.into())
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
        || write(options.status_code, body, Extras::default(), options)
            .is_ok_and(|written| written != record)
}

impl Recorded for Reply {
    fn status_code(&self, _: &Idempotency) -> u16 {
        self.status_code
    }

    fn is_final(&self, options: &Idempotency) -> bool {
        options.keep_all || self.is_definitive()
    }

    fn encode(&self, options: &Idempotency) -> Result<Bytes> {
        let unkept = |message| not_kept(self.status_code, message);
        if self.is_omitted() {
            let message = "the work is done, and its answer was not kept, as the work asked";
            return Err(unkept(message));
        }
        if !(100..=999).contains(&self.status_code) {
            let message = "the work is done, and its answer was not kept: the status code must be \
                           from 100 to 999";
            return Err(unkept(message));
        }
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), latin1(value)));
        let extras =
            |encoding| Extras { headers: Some(headers.collect()), encoding: Some(encoding) };
        let status_code = self.status_code;
        let record = match json(&self.body) {
            Some(body) => write(status_code, body, extras(JSON), options),
            None => write(status_code, &base64::encode(&self.body), extras(BASE64), options),
        };
        let record = record.map_err(|error| {
            let message = "the work is done, and its answer was not kept: it could not be written";
            unkept(message).with_source(redacted(&error))
        })?;
        // Nobody shall find on a retry that a replay is another answer.
        match StoredRecord::decode(&record).and_then(|record| Self::decode(&record)) {
            Ok(again) if again == *self => Ok(record.into()),
            _ => Err(unkept(
                "the work is done, and its answer was not kept: its record reads as another one",
            )),
        }
    }

    fn decode(record: &StoredRecord<'_>) -> Result<Self> {
        let json = || Bytes::copy_from_slice(record.raw_body().as_bytes());
        let body = match record.encoding().as_deref() {
            Some(JSON) => json(),
            Some(BASE64) => {
                let text: String = record.body().map_err(|error| another_type(&error))?;
                let bytes = base64::decode(&text);
                bytes.ok_or_else(|| corrupt("the record's body is not base64"))?.into()
            }
            // Another type of body, or another library, wrote it.
            _ => {
                let reply = Self::new(record.status_code, json());
                return Ok(reply.header("content-type", "application/json"));
            }
        };
        let mut reply = Self::new(record.status_code, body);
        for (name, value) in record.headers()? {
            let value = bytes_of_latin1(&value);
            reply = reply.header(
                name,
                value.ok_or_else(|| corrupt("a header of the record is not in ISO-8859-1"))?,
            );
        }
        Ok(reply)
    }
}

/// The body, where it is JSON and nothing else, for white space around it would be lost, and where other
/// readers can be expected to follow how deep it goes.
fn json(body: &[u8]) -> Option<&RawValue> {
    let json: &RawValue = serde_json::from_slice(body).ok()?;
    (json.get().len() == body.len() && depth(json.get()) <= DEEPEST).then_some(json)
}

/// How deep objects and arrays are nested in a text that is JSON.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Each byte as the character of that number.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn bytes_of_latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(character).ok()).collect()
}
