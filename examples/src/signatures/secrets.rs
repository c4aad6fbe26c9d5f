use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Why a secret cannot be used. It does not show the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// There is none, so that no webhook could be verified.
    #[error("there must be a secret")]
    Missing,
    /// A secret is empty, and everybody could sign with it.
    #[error("a secret is empty")]
    Empty,
    /// A secret does not have the form that its sender gives it.
    #[error("a secret must be `whsec_` and base64")]
    Malformed,
}

/// The secrets that one sender may sign with, as HMAC-SHA256 that has taken in its key.
#[derive(Clone)]
pub(super) struct Secrets(Vec<Hmac<Sha256>>);

impl Secrets {
    pub(super) fn new<K: AsRef<[u8]>>(
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Self, SecretError> {
        let secrets: Vec<_> =
            keys.into_iter().map(|key| keyed(key.as_ref())).collect::<Result<_, _>>()?;
        if secrets.is_empty() {
            return Err(SecretError::Missing);
        }
        Ok(Self(secrets))
    }

    /// Whether one of `signatures` is that of `parts`, one after the other, under one of the secrets.
    ///
    /// The parts are hashed once for each secret. How long a comparison takes says nothing about where a
    /// signature is wrong.
    pub(super) fn have_signed(&self, parts: &[&[u8]], signatures: &[Vec<u8>]) -> bool {
        self.0.iter().any(|keyed| {
            let mut mac = keyed.clone();
            parts.iter().for_each(|part| mac.update(part));
            signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
        })
    }
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>, SecretError> {
    if key.is_empty() {
        return Err(SecretError::Empty);
    }
    // A key of any length is taken, so this error never comes.
    Hmac::new_from_slice(key).map_err(|_| SecretError::Malformed)
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}
