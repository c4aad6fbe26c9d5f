use bytes::Bytes;

/// A whole response as the body of an idempotent call: status code, headers and bytes, replayed as they
/// are.
///
/// The work chooses the status code, so that of the [options](crate::Idempotency::status_code) does not
/// count. Which replies are kept depends on it: those that are definitive, and not those that another
/// try may change. Kept are 2xx, 3xx and 4xx but 401, 403, 408, 409, 425 and 429; a reply of any other
/// status is given to its caller, and the key is free again.
/// [`keep_all`](crate::Idempotency::keep_all) keeps them all.
///
/// Its record is `{"status_code":201,"body":…,"headers":[["location","/orders/1"]],"encoding":"json"}`. A
/// body that is JSON is kept as it is written, and any other in base64, with `"encoding":"base64"`. A
/// record that has no `encoding`, which another library or another type of body wrote, is read as JSON,
/// with the header `content-type: application/json`.
///
/// All headers are kept that are here: leave out `Set-Cookie`, which is for one client and one moment,
/// and what belongs to one connection. A header's value is kept as text in ISO-8859-1, so that no byte
/// is lost.
///
/// # Examples
///
/// ```
/// use derp_kv_core::{Idempotency, KvStoreExt, Reply};
/// # #[tokio::main] async fn main() -> anyhow::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let create = || async {
///     anyhow::Ok(Reply::new(201, r#"{"order": 1}"#).header("location", "/orders/1"))
/// };
/// let first = kv.idempotent_execute("a-key", &Idempotency::default(), create).await?;
/// let again = kv.idempotent_execute("a-key", &Idempotency::default(), create).await?;
/// assert_eq!((again.status_code, again.is_replay), (201, true));
/// assert_eq!(again.body, first.body);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// The HTTP status code, from 100 to 999.
    pub status_code: u16,
    /// Names and values, in order; a name may stand more than once.
    pub headers: Vec<(String, Bytes)>,
    /// The body's bytes.
    pub body: Bytes,
    /// Whether only the status code is to be kept.
    is_omitted: bool,
}

impl Reply {
    /// A reply without headers.
    pub fn new(status_code: u16, body: impl Into<Bytes>) -> Self {
        Self { status_code, headers: Vec::new(), body: body.into(), is_omitted: false }
    }

    /// Adds a header behind those that are there.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The end of work whose answer is not to be kept, such as one that is too long.
    ///
    /// A small record with its status code takes its place. This call and all later ones get
    /// [`NotKept`](crate::ErrorKind::NotKept), and the work does not run again: give this caller its
    /// answer by another way. Where the status code itself is not kept, this is a reply without a body.
    #[must_use]
    pub fn omitted(status_code: u16) -> Self {
        Self { is_omitted: true, ..Self::new(status_code, Bytes::new()) }
    }

    /// Whether another try could not come to anything else. A number that is no status code is the end
    /// of the work as well: it says nothing of another try.
    pub(crate) fn is_definitive(&self) -> bool {
        !matches!(self.status_code, 100..=199 | 401 | 403 | 408 | 409 | 425 | 429 | 500..=999)
    }

    /// Whether its body and headers are not to be kept.
    pub(crate) fn is_omitted(&self) -> bool {
        self.is_omitted
    }
}
