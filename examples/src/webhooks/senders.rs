//! Who may send webhooks, and the secrets that they sign with.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use axum::http::HeaderMap;
use derp_kv_core::Result;
use serde::Deserialize;

use crate::config::{invalid, read};
use crate::signatures::{GitHub, Refusal, SecretError, StandardWebhooks, Stripe};

/// The senders by their names, which are the last part of the path that they call.
///
/// Without any, everybody is trusted: anybody can fake a payment, and fill the store with events. With
/// one, nobody else is.
#[derive(Clone, Debug, Default)]
pub struct Senders(BTreeMap<String, Sender>);

#[derive(Clone, Debug)]
enum Sender {
    StandardWebhooks(StandardWebhooks),
    Stripe(Stripe),
    GitHub(GitHub),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    webhooks: BTreeMap<String, Table>,
}

/// `[webhooks.name]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    signed_by: Scheme,
    secrets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Scheme {
    StandardWebhooks,
    Stripe,
    #[serde(rename = "github")]
    GitHub,
}

impl Senders {
    /// Reads the tables `[webhooks.name]` of a `derp.toml`, if there are any:
    ///
    /// ```toml
    /// [webhooks.stripe]
    /// signed_by = "stripe" # or "standard-webhooks", or "github"
    /// secrets = ["whsec_new", "whsec_old"]
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`](derp_kv_core::ErrorKind::InvalidArgument) names the table, and quotes nothing of it.
    pub fn from_toml_str(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text).map_err(|_| {
            invalid(
                "[webhooks.name]: needs signed_by = \"standard-webhooks\", \"stripe\" or \
                     \"github\", secrets = [\"..\"] and nothing else",
            )
        })?;
        let senders = file.webhooks.into_iter().map(|(name, table)| {
            let sender = Sender::new(table);
            let sender = sender.map_err(|error| invalid(format!("[webhooks.{name}]: {error}")))?;
            Ok((name, sender))
        });
        senders.collect::<Result<_>>().map(Self)
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// As [`from_toml_str`](Self::from_toml_str), and for a file that cannot be read.
    pub fn from_toml_path(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_toml_str(&read(path.as_ref())?)
    }

    /// Whether there is none, so that whoever calls is believed.
    #[must_use]
    pub fn trust_everybody(&self) -> bool {
        self.0.is_empty()
    }

    /// The id of an event that is signed by the sender `name`; none where everybody is trusted.
    pub(crate) fn verify(
        &self,
        name: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> std::result::Result<Option<String>, NotTrusted> {
        if self.trust_everybody() {
            return Ok(None);
        }
        let sender = self.0.get(name).ok_or(NotTrusted::Unknown)?;
        let now = SystemTime::now();
        let id = match sender {
            Sender::StandardWebhooks(sender) => sender.verify(headers, body, now),
            Sender::Stripe(sender) => sender.verify(headers, body, now),
            Sender::GitHub(sender) => sender.verify(headers, body),
        };
        Ok(Some(id?))
    }
}

/// Why a webhook is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTrusted {
    #[error("nobody of this name may send webhooks")]
    Unknown,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Sender {
    fn new(Table { signed_by, secrets }: Table) -> std::result::Result<Self, SecretError> {
        Ok(match signed_by {
            Scheme::StandardWebhooks => Self::StandardWebhooks(StandardWebhooks::new(secrets)?),
            Scheme::Stripe => Self::Stripe(Stripe::new(secrets)?),
            Scheme::GitHub => Self::GitHub(GitHub::new(secrets)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Senders::from_toml_str(text).unwrap_err().to_string()
    }

    #[test]
    fn each_sender_has_a_table() {
        let none = Senders::from_toml_str("[kv.memory]").unwrap();
        assert!(none.trust_everybody());
        let text = "[webhooks.pay]\nsigned_by = \"stripe\"\nsecrets = [\"a\", \"b\"]\n\
                    [webhooks.code]\nsigned_by = \"github\"\nsecrets = [\"c\"]\n\
                    [webhooks.mail]\nsigned_by = \"standard-webhooks\"\nsecrets = [\"whsec_QUJD\"]";
        let three = Senders::from_toml_str(text).unwrap();
        assert_eq!(three.0.keys().collect::<Vec<_>>(), ["code", "mail", "pay"]);
        assert_eq!(three.verify("shop", &HeaderMap::new(), b""), Err(NotTrusted::Unknown));
    }

    #[test]
    fn a_wrong_table_is_named_and_its_secrets_are_not() {
        for (text, named) in [
            ("signed_by = \"stripe\"", "[webhooks.name]: needs"),
            ("signed_by = \"hunter2\"\nsecrets = [\"hunter2\"]", "[webhooks.name]: needs"),
            ("signed_by = \"stripe\"\nsecrets = \"hunter2\"", "[webhooks.name]: needs"),
            ("signed_by = \"stripe\"\nsecret = \"hunter2\"", "[webhooks.name]: needs"),
            ("signed_by = \"stripe\"\nsecrets = []", "[webhooks.pay]: there must be a secret"),
            (
                "signed_by = \"github\"\nsecrets = [\"hunter2\", \"\"]",
                "[webhooks.pay]: a secret is",
            ),
            (
                "signed_by = \"standard-webhooks\"\nsecrets = [\"hunter2\"]",
                "[webhooks.pay]: a secret",
            ),
        ] {
            let error = wrong(&format!("[webhooks.pay]\n{text}"));
            assert!(error.contains(named), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
