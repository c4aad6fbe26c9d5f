use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use serde::Deserialize;

use super::refusal::Refusal;
use super::secrets::{SecretError, Secrets};
use super::tolerance::Tolerance;
use super::{header, hex};

const NAME: &str = "stripe-signature";

/// Verifies webhooks of [Stripe](https://docs.stripe.com/webhooks).
///
/// Its header is `t=1533204620,v1=f0bd…,v1=…`: a time, and a signature for each secret that is valid, of
/// which there are two while one is changed. Signed with HMAC-SHA256 is `{t}.{body}`, under the whole
/// secret, `whsec_` included. Signatures of another scheme, such as `v0`, are passed over.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use axum::http::HeaderMap;
/// use derp_kv_core::{Dedup, KvStore, KvStoreExt, id_of};
/// use derp_kv_examples::signatures::Stripe;
///
/// async fn receive<S: KvStore + Clone>(
///     kv: &S,
///     stripe: &Stripe,
///     headers: &HeaderMap,
///     body: &[u8],
/// ) -> anyhow::Result<()> {
///     let id = stripe.verify(headers, body, SystemTime::now())?;
///     // Stripe delivers an event for up to three days.
///     let options = Dedup::default().ttl(Duration::from_secs(4 * 24 * 3600));
///     kv.process_once(id_of(&["stripe", &id]), &options, || handle(body)).await?;
///     Ok(())
/// }
/// # async fn handle(_: &[u8]) -> anyhow::Result<()> { Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Stripe {
    secrets: Secrets,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Event {
    id: String,
}

impl Stripe {
    /// A sender that signs with one of `secrets`, as the page of the endpoint shows them.
    ///
    /// # Errors
    ///
    /// There is no secret, or one is empty.
    pub fn new<K: AsRef<[u8]>>(secrets: impl IntoIterator<Item = K>) -> Result<Self, SecretError> {
        Ok(Self { secrets: Secrets::new(secrets)?, tolerance: Tolerance::USUAL })
    }

    /// How far the time of a signature may be from now, in either direction. By default five minutes.
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = Tolerance(tolerance);
        self
    }

    /// Returns the event's id if the header holds a signature of the time and the body.
    ///
    /// The id stands in the body, and is the same in each delivery of the event.
    ///
    /// # Errors
    ///
    /// What is wrong with the header or the signature; or the body, which is signed, has no id.
    pub fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Result<String, Refusal> {
        let (sent, signatures) = read(header::one(headers, NAME)?)?;
        self.tolerance.check(NAME, sent, now)?;
        if !self.secrets.have_signed(&[sent.as_bytes(), b".", body], &signatures) {
            return Err(Refusal::WrongSignature);
        }
        let event: Event = serde_json::from_slice(body).map_err(|_| Refusal::NoEventId)?;
        if header::is_id(&event.id) { Ok(event.id) } else { Err(Refusal::NoEventId) }
    }
}

/// The time and the signatures of a header.
fn read(header: &str) -> Result<(&str, Vec<Vec<u8>>), Refusal> {
    let (mut time, mut signatures) = (None, Vec::new());
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", text)) if time.is_none() => time = Some(text),
            Some(("t", _)) | None => return Err(Refusal::Malformed(NAME)),
            Some(("v1", text)) => signatures.extend(hex::decode(text)),
            Some(_another_scheme) => {}
        }
    }
    Ok((time.ok_or(Refusal::Malformed(NAME))?, signatures))
}
