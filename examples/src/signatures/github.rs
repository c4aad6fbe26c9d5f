use axum::http::HeaderMap;

use super::refusal::Refusal;
use super::secrets::{SecretError, Secrets};
use super::{header, hex};

const SIGNATURE: &str = "x-hub-signature-256";
const DELIVERY: &str = "x-github-delivery";

/// Verifies webhooks of
/// [GitHub](https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries).
///
/// Its header is `sha256=` and one signature, of the body alone. Neither the time nor the delivery's id
/// is signed: who has recorded a delivery can send it again at any time, under any id.
/// So let what an event says be checked, and do not let it be the only reason for an effect that must
/// not come twice. TLS keeps others from recording.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use axum::http::HeaderMap;
/// use derp_kv_core::{Dedup, KvStore, KvStoreExt, id_of};
/// use derp_kv_examples::signatures::GitHub;
///
/// async fn receive<S: KvStore + Clone>(
///     kv: &S,
///     github: &GitHub,
///     headers: &HeaderMap,
///     body: &[u8],
/// ) -> anyhow::Result<()> {
///     let id = github.verify(headers, body)?;
///     // For three days a delivery can be sent again, by a click.
///     let options = Dedup::default().ttl(Duration::from_secs(4 * 24 * 3600));
///     kv.process_once(id_of(&["github", &id]), &options, || handle(body)).await?;
///     Ok(())
/// }
/// # async fn handle(_: &[u8]) -> anyhow::Result<()> { Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct GitHub {
    secrets: Secrets,
}

impl GitHub {
    /// A sender that signs with one of `secrets`, as they were typed into the settings of the webhook.
    ///
    /// # Errors
    ///
    /// There is no secret, or one is empty.
    pub fn new<K: AsRef<[u8]>>(secrets: impl IntoIterator<Item = K>) -> Result<Self, SecretError> {
        Ok(Self { secrets: Secrets::new(secrets)? })
    }

    /// Returns the delivery's id if the header holds a signature of the body.
    ///
    /// The id is the same when GitHub delivers the event again.
    ///
    /// # Errors
    ///
    /// What is wrong with the headers or the signature.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<String, Refusal> {
        let signature =
            header::one(headers, SIGNATURE)?.strip_prefix("sha256=").and_then(hex::decode);
        let signature = signature.ok_or(Refusal::Malformed(SIGNATURE))?;
        let id = header::id(headers, DELIVERY)?;
        if !self.secrets.have_signed(&[body], &[signature]) {
            return Err(Refusal::WrongSignature);
        }
        Ok(id.to_owned())
    }
}
