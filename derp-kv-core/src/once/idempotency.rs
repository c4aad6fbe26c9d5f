use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::coordinate::claim::{Claim, claim};
use crate::coordinate::keys::{LOCK_TTL, RETRY_DELAY, check_duration, helper_key, lock_key};
use crate::coordinate::lease::Lease;
use crate::coordinate::lease::hex;
use crate::coordinate::write_once::{Record, Written};
use crate::error::{Error, ErrorKind, Result};
use crate::singleflight::flights::{Lead, Purpose, Ticket, Turn};
use crate::store::kv_store::KvStore;
use crate::store::ttl::Ttl;

const OPERATION: &str = "idempotent_execute";

/// Options of [`idempotent_execute`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Idempotency {
    status_code: u16,
    ttl: Duration,
    lock_ttl: Duration,
    retry_delay: Duration,
    key_prefix: String,
    fingerprint: Option<String>,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            status_code: 200,
            ttl: Duration::from_secs(24 * 60 * 60),
            lock_ttl: LOCK_TTL,
            retry_delay: RETRY_DELAY,
            key_prefix: "derp:idempotency".to_owned(),
            fingerprint: None,
        }
    }
}

impl Idempotency {
    /// The status code to keep with the body. By default 200.
    pub fn status_code(mut self, status_code: u16) -> Self {
        self.status_code = status_code;
        self
    }

    /// How long the record lives, and a repeated request is a replay. By default 24 hours.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long the key stays taken after a holder crashed, and how long a duplicate waits for
    /// one that is alive. By default two seconds.
    pub fn lock_ttl(mut self, lock_ttl: Duration) -> Self {
        self.lock_ttl = lock_ttl;
        self
    }

    /// How long a waiting duplicate sleeps at most before it looks again. By default 50 ms.
    pub fn retry_delay(mut self, retry_delay: Duration) -> Self {
        self.retry_delay = retry_delay;
        self
    }

    /// What the record's key begins with. By default `derp:idempotency`.
    pub fn key_prefix(mut self, key_prefix: impl Into<String>) -> Self {
        self.key_prefix = key_prefix.into();
        self
    }

    /// The request that the key stands for, such as its body: the same key with another request
    /// is then [`KeyReused`](ErrorKind::KeyReused). A SHA-256 hash of it is kept.
    pub fn fingerprint(mut self, request: impl AsRef<[u8]>) -> Self {
        self.fingerprint = Some(hex(&Sha256::digest(request.as_ref())));
        self
    }
}

/// What a request with an idempotency key came to, now or before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<T> {
    /// What the work returned.
    pub body: T,
    /// The status code that was kept with it.
    pub status_code: u16,
    /// Whether the work ran earlier, or for another caller.
    pub is_replay: bool,
}

/// Runs `compute` once for each `key`, and gives everybody its outcome.
///
/// See [`KvStoreExt::idempotent_execute`](crate::KvStoreExt::idempotent_execute).
///
/// # Errors
///
/// As there.
pub async fn idempotent_execute<S, K, T, F, Fut, E>(
    store: &S,
    key: K,
    options: Idempotency,
    compute: F,
) -> Result<Outcome<T>, E>
where
    S: KvStore + Clone,
    K: AsRef<[u8]> + Send + Sync,
    T: Serialize + DeserializeOwned + Send,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
    E: From<Error> + Send,
{
    let named = |error: Error| error.with_operation(OPERATION);
    let key = helper_key(&options.key_prefix, key.as_ref()).map_err(named)?;
    Ttl::new(options.ttl).map_err(named)?;
    check_duration("lock_ttl", options.lock_ttl).map_err(named)?;
    check_duration("retry_delay", options.retry_delay).map_err(named)?;
    if !(100..=999).contains(&options.status_code) {
        let message = "`status_code` must be from 100 to 999";
        return Err(named(Error::new(ErrorKind::InvalidArgument, message)).into());
    }
    let give_up = Instant::now() + options.lock_ttl;
    Call { store, key: &key, options: &options, give_up }.run(compute).await
}

struct Call<'a, S> {
    store: &'a S,
    key: &'a [u8],
    options: &'a Idempotency,
    /// When a duplicate stops waiting.
    give_up: Instant,
}

impl<S: KvStore + Clone> Call<'_, S> {
    async fn run<T, F, Fut, E>(self, compute: F) -> Result<Outcome<T>, E>
    where
        T: Serialize + DeserializeOwned + Send,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
    {
        let flights = self.store.flights();
        let mut ticket =
            flights.and_then(|flights| flights.join_existing(Purpose::Idempotent, self.key));
        let mut broken = false;
        loop {
            let joined = match ticket.take() {
                Some(ticket) => ticket,
                None => {
                    if let Some(record) = self.read().await? {
                        return Ok(self.replay(&record)?);
                    }
                    flights.map_or_else(Ticket::alone, |flights| {
                        flights.join(Purpose::Idempotent, self.key)
                    })
                }
            };
            self.check_fingerprint(joined.tag().as_deref())?;
            match tokio::time::timeout_at(self.give_up, joined.turn()).await {
                Ok(Turn::Landed(record)) => return Ok(self.replay(&record)?),
                Ok(Turn::Lead(lead)) => return self.lead(lead, compute).await,
                // Once may be chance; see `guarded_get`.
                Ok(Turn::Broken(error)) if broken => {
                    return Err(error.with_operation(OPERATION).into());
                }
                Ok(Turn::Broken(_)) => broken = true,
                Err(_) => {
                    // It may have been marked since.
                    self.check_fingerprint(joined.tag().as_deref())?;
                    return Err(self.in_progress().into());
                }
            }
        }
    }

    /// The leader of this process contends for the key with the others.
    async fn lead<T, F, Fut, E>(&self, lead: Lead<'_>, compute: F) -> Result<Outcome<T>, E>
    where
        T: Serialize + DeserializeOwned + Send,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
    {
        let record = loop {
            match self.contend().await {
                Ok(Claim::Locked(lease)) => return self.execute(lead, lease, compute).await,
                Ok(Claim::Found(record)) => break record,
                Ok(Claim::Held) => {}
                // This caller's request is not the one under way: nobody else's business.
                Err(error) if error.kind() == ErrorKind::KeyReused => return Err(error.into()),
                Err(error) => {
                    lead.break_up(&error);
                    return Err(error.with_operation(OPERATION).into());
                }
            }
            let left = self.give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.in_progress().into());
            }
            let pause = left.min(self.options.retry_delay);
            self.store.wait_for_change(self.key, None, pause).await;
            match self.read().await {
                Ok(Some(record)) => break record,
                Ok(None) => {}
                Err(error) => {
                    lead.break_up(&error);
                    return Err(error.into());
                }
            }
        };
        let outcome = self.replay(&record);
        lead.land(record);
        Ok(outcome?)
    }

    async fn contend(&self) -> Result<Claim> {
        let Idempotency { fingerprint, lock_ttl, .. } = self.options;
        let claim = claim(self.store, self.key, fingerprint.as_deref(), *lock_ttl).await?;
        if matches!(claim, Claim::Held)
            && fingerprint.is_some()
            && let Some(holder) = self.store.get(&lock_key(self.key)).await?
        {
            self.check_fingerprint(fingerprint_of_lock(&holder))?;
        }
        Ok(claim)
    }

    /// The holder of the key does the work and writes the record.
    async fn execute<T, F, Fut, E>(
        &self,
        lead: Lead<'_>,
        lease: Lease,
        compute: F,
    ) -> Result<Outcome<T>, E>
    where
        T: Serialize + DeserializeOwned + Send,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
    {
        lead.mark(self.options.fingerprint.as_deref());
        let body = match compute().await {
            Ok(body) => body,
            Err(error) => {
                // Where the release fails, it goes on in the background.
                let _ = lease.release().await;
                return Err(error);
            }
        };
        let record = match encode(&body, self.options) {
            Ok(record) => record,
            Err(error) => {
                // The work is done and must not be begun again at once.
                lease.abandon();
                return Err(error.into());
            }
        };
        match self.write(record.clone(), lease).await {
            Ok(Written::Now) => {
                lead.land(record);
                let status_code = self.options.status_code;
                Ok(Outcome { body, status_code, is_replay: false })
            }
            // A successor took over meanwhile, and its record is the one that counts.
            Ok(Written::Before(record)) => {
                let outcome = self.replay(&record);
                lead.land(record);
                Ok(outcome?)
            }
            Err(error) => {
                lead.break_up(&error);
                Err(error.with_operation(OPERATION).into())
            }
        }
    }

    async fn write(&self, value: Bytes, lease: Lease) -> Result<Written> {
        let key = Bytes::copy_from_slice(self.key);
        let Idempotency { ttl, retry_delay: pause, lock_ttl: patience, .. } = *self.options;
        Record { key, value, ttl, pause, patience }.write(self.store, lease).await
    }

    async fn read(&self) -> Result<Option<Bytes>> {
        self.store.get(self.key).await.map_err(|error| error.with_operation(OPERATION))
    }

    fn replay<T: DeserializeOwned>(&self, record: &[u8]) -> Result<Outcome<T>> {
        let stored = StoredRecord::decode(record)?;
        // Before the body, which of another request may be of another type.
        self.check_fingerprint(stored.fingerprint.as_deref())?;
        stored.outcome()
    }

    /// Refuses a request that is known to be another one than `theirs`.
    fn check_fingerprint(&self, theirs: Option<&str>) -> Result<()> {
        match (self.options.fingerprint.as_deref(), theirs) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                let message = "this idempotency key was used for another request";
                Err(Error::new(ErrorKind::KeyReused, message).with_operation(OPERATION))
            }
            _ => Ok(()),
        }
    }

    fn in_progress(&self) -> Error {
        Error::new(ErrorKind::InProgress, "another caller runs this idempotency key")
            .with_operation(OPERATION)
            .with_retry_after(self.options.lock_ttl)
    }
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
struct StoredRecord<'a> {
    status_code: u16,
    #[serde(borrow)]
    body: &'a RawValue,
    fingerprint: Option<String>,
}

fn encode<T: Serialize>(body: &T, options: &Idempotency) -> Result<Bytes> {
    let fingerprint = options.fingerprint.as_deref();
    let record = NewRecord { status_code: options.status_code, body, fingerprint };
    serde_json::to_vec(&record).map(Bytes::from).map_err(|error| {
        Error::new(ErrorKind::InvalidArgument, "the work is done, but its body is not JSON")
            .with_operation(OPERATION)
            .with_may_have_applied(true)
            .with_source(Redacted::from(&error))
    })
}

impl<'a> StoredRecord<'a> {
    fn decode(record: &'a [u8]) -> Result<Self> {
        serde_json::from_slice(record)
            .map_err(|error| corrupt("the record cannot be decoded; it is left as it is", &error))
    }

    fn outcome<T: DeserializeOwned>(&self) -> Result<Outcome<T>> {
        let body = serde_json::from_str(self.body.get())
            .map_err(|error| corrupt("the record's body is of another type", &error))?;
        Ok(Outcome { body, status_code: self.status_code, is_replay: true })
    }
}

fn corrupt(what: &'static str, error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, what)
        .with_operation(OPERATION)
        .with_source(Redacted::from(error))
}

/// Where JSON went wrong, without the values that serde's messages quote.
#[derive(Debug, thiserror::Error)]
#[error("{category:?} error at line {line}, column {column}")]
struct Redacted {
    category: serde_json::error::Category,
    line: usize,
    column: usize,
}

impl From<&serde_json::Error> for Redacted {
    fn from(error: &serde_json::Error) -> Self {
        Self { category: error.classify(), line: error.line(), column: error.column() }
    }
}

/// A lock's value is its token and, where the request has one, `:` and its fingerprint.
fn fingerprint_of_lock(value: &[u8]) -> Option<&str> {
    let (token, fingerprint) = std::str::from_utf8(value).ok()?.split_once(':')?;
    // A lock that another library wrote may hold anything.
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    (hex(token, 32) && hex(fingerprint, 64)).then_some(fingerprint)
}
