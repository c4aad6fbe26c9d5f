use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::header;
use super::refusal::Refusal;
use super::secrets::{SecretError, Secrets};
use super::tolerance::Tolerance;

/// The names of the headers: the id, the time, the signatures.
const NAMES: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// Svix wrote the scheme first, and sends it under names of its own.
const SVIX_NAMES: [&str; 3] = ["svix-id", "svix-timestamp", "svix-signature"];

/// Verifies webhooks of [Standard Webhooks](https://www.standardwebhooks.com) by their symmetric
/// signatures, which are called `v1` there.
///
/// Signed with HMAC-SHA256 is `{id}.{timestamp}.{body}`, where the body can be any bytes. The header with
/// the signatures is a list, because a sender that changes its secret signs with both for a while;
/// signatures of another version in it are passed over.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use axum::http::HeaderMap;
/// use derp_kv_core::{Dedup, KvStore, KvStoreExt, id_of};
/// use derp_kv_examples::signatures::StandardWebhooks;
///
/// async fn receive<S: KvStore + Clone>(
///     kv: &S,
///     sender: &StandardWebhooks,
///     headers: &HeaderMap,
///     body: &[u8],
/// ) -> anyhow::Result<()> {
///     let id = sender.verify(headers, body, SystemTime::now())?;
///     // The usual schedule of deliveries ends after 75 h 35 min.
///     let options = Dedup::default().ttl(Duration::from_secs(4 * 24 * 3600));
///     kv.process_once(id_of(&["standard-webhooks", &id]), &options, || handle(body)).await?;
///     Ok(())
/// }
/// # async fn handle(_: &[u8]) -> anyhow::Result<()> { Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct StandardWebhooks {
    secrets: Secrets,
    tolerance: Tolerance,
}

impl StandardWebhooks {
    /// A sender that signs with one of `secrets`, each `whsec_` and base64, as its page shows them.
    ///
    /// # Errors
    ///
    /// There is no secret, one is empty, or one is not of this form.
    pub fn new<K: AsRef<str>>(secrets: impl IntoIterator<Item = K>) -> Result<Self, SecretError> {
        let decode = |secret: K| {
            let secret = secret.as_ref();
            let base64 = secret.strip_prefix("whsec_").unwrap_or(secret);
            STANDARD.decode(base64).map_err(|_| SecretError::Malformed)
        };
        let keys = secrets.into_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { secrets: Secrets::new(keys)?, tolerance: Tolerance::USUAL })
    }

    /// How far the time of a signature may be from now, in either direction. By default five minutes.
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = Tolerance(tolerance);
        self
    }

    /// Returns the event's id if the headers hold a signature of it, the time and the body.
    ///
    /// The id is signed, and the same in each delivery of the event.
    ///
    /// # Errors
    ///
    /// What is wrong with the headers or the signature.
    pub fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Result<String, Refusal> {
        let [id, timestamp, signatures] =
            if headers.contains_key(SVIX_NAMES[0]) { SVIX_NAMES } else { NAMES };
        let event_id = header::id(headers, id)?;
        // With a full stop in the id, another split of what was signed could be signed as well.
        if event_id.contains('.') {
            return Err(Refusal::Malformed(id));
        }
        let sent = header::one(headers, timestamp)?;
        self.tolerance.check(timestamp, sent, now)?;
        let signatures: Vec<_> = header::one(headers, signatures)?
            .split(' ')
            .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
            .collect();
        let signed = [event_id.as_bytes(), b".", sent.as_bytes(), b".", body];
        if !self.secrets.have_signed(&signed, &signatures) {
            return Err(Refusal::WrongSignature);
        }
        Ok(event_id.to_owned())
    }
}
