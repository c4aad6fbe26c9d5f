//! The PEM files of TLS: reading them, and saying what is wrong with them.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use derp_kv_core::{Error, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};

use super::{ValkeyConfig, field};

/// What is built from the files, and kept as long as they hold the same.
///
/// It belongs to one store: a clone is empty, and it is no part of what makes configurations equal.
#[derive(Default)]
pub(crate) struct KeptTls(pub(crate) Mutex<Option<(TlsFiles, Arc<ClientConfig>)>>);

impl Clone for KeptTls {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for KeptTls {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for KeptTls {}

impl fmt::Debug for KeptTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// The files and what they hold.
#[derive(PartialEq, Eq)]
pub(crate) struct TlsFiles {
    ca: Option<Pem>,
    cert: Option<Pem>,
    key: Option<Pem>,
}

impl TlsFiles {
    pub(crate) fn read(config: &ValkeyConfig) -> Result<Self> {
        let read = |name, path: &Option<_>| path.clone().map(|path| Pem::read(name, path));
        Ok(Self {
            ca: read("ca_file", &config.ca_file).transpose()?,
            cert: read("client_cert_file", &config.client_cert_file).transpose()?,
            key: read("client_key_file", &config.client_key_file).transpose()?,
        })
    }

    /// The authorities of the file, or of the system. One that cannot be used is skipped, unless
    /// there is no other.
    pub(crate) fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let certificates = match &self.ca {
            Some(pem) => pem.certificates()?.into_iter().flatten().collect(),
            None => rustls_native_certs::load_native_certs().certs,
        };
        roots.add_parsable_certificates(certificates);
        match &self.ca {
            _ if !roots.is_empty() => Ok(roots),
            Some(pem) => Err(pem.problem(
                "holds no usable certificate: each is cut off, damaged, or no X.509 certificate; export the authority anew",
            )),
            None => Err(field("use_tls", "the system has no root certificates; set ca_file")),
        }
    }

    /// The certificate to show and its key.
    pub(crate) fn client(&self) -> Result<Option<CertifiedKey>> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(None) };
        // No certificate may be left out here: the server needs the whole chain.
        let chain: Option<Vec<_>> = cert.certificates()?.into_iter().collect();
        let chain =
            chain.ok_or_else(|| cert.problem("holds a certificate that is cut off or damaged"))?;
        let provider = rustls::crypto::ring::default_provider();
        let made = CertifiedKey::from_der(chain, key.private_key()?, &provider);
        made.map(Some).map_err(|error| {
            let problem = match &error {
                rustls::Error::InconsistentKeys(_) => key.problem(
                    "does not belong to the first certificate of client_cert_file, which must be the client's own",
                ),
                rustls::Error::InvalidCertificate(_) => {
                    cert.problem("begins with something that is no X.509 certificate")
                }
                _ => key.problem(
                    "holds a key that cannot be used; RSA from 2048 bits on, ECDSA P-256 and P-384, and Ed25519 can",
                ),
            };
            problem.with_source(error)
        })
    }
}

/// One file, and the field that names it.
#[derive(PartialEq, Eq)]
struct Pem {
    name: &'static str,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Pem {
    fn read(name: &'static str, path: PathBuf) -> Result<Self> {
        let bytes = std::fs::read(&path).map_err(|error| {
            field(name, format_args!("cannot read {}", path.display())).with_source(error)
        })?;
        Ok(Self { name, path, bytes })
    }

    fn problem(&self, problem: &str) -> Error {
        field(self.name, format_args!("{} {problem}", self.path.display()))
    }

    /// The certificates, `None` for one that is cut off or damaged.
    fn certificates(&self) -> Result<Vec<Option<CertificateDer<'static>>>> {
        let text = self.text()?;
        let certificates: Vec<_> = sections(&text)
            .filter(|(label, _)| *label == "CERTIFICATE")
            .map(|(_, section)| CertificateDer::from_pem_slice(section.as_bytes()).ok())
            .collect();
        if certificates.is_empty() {
            return Err(self.lacks("CERTIFICATE", "openssl x509 -inform der", &text));
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        const LABELS: [&str; 4] =
            ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"];
        let text = self.text()?;
        let Some((label, section)) = sections(&text).find(|(label, _)| LABELS.contains(label))
        else {
            return Err(self.lacks("PRIVATE KEY", "openssl pkey -inform der", &text));
        };
        // OpenSSL's older form says it in a line above the key.
        if label.starts_with("ENCRYPTED") || section.contains(",ENCRYPTED") {
            return Err(self.problem(
                "holds an encrypted private key, and only a plain one can be read: `openssl pkey -in OLD -out NEW` decrypts it",
            ));
        }
        PrivateKeyDer::from_pem_slice(section.as_bytes())
            .map_err(|_| self.problem("holds a private key that is cut off or damaged"))
    }

    fn text(&self) -> Result<Cow<'_, str>> {
        let marks = [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"];
        if marks.iter().any(|mark| self.bytes.starts_with(mark)) {
            let problem = "begins with a byte order mark; save it as plain ASCII without one";
            return Err(self.problem(problem));
        }
        // PEM is ASCII; only the remarks between its sections may hold other bytes.
        Ok(String::from_utf8_lossy(&self.bytes))
    }

    /// What the file is, where it does not hold a PEM section of this label.
    fn lacks(&self, label: &str, convert: &str, text: &str) -> Error {
        // Nothing is shown but a label: what stands there may be anything.
        let is_label = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b == b' ');
        let problem = match sections(text).next() {
            Some(("TRUSTED CERTIFICATE", _)) => {
                "holds a TRUSTED CERTIFICATE, a form of OpenSSL's own: `openssl x509 -in OLD -out NEW` makes it a CERTIFICATE".to_owned()
            }
            Some((other, _)) if other.len() < 40 && is_label(other) => {
                format!("holds no PEM section {label}; its first is {other}")
            }
            None if self.bytes.iter().any(|byte| *byte < b'\t') => {
                format!("is binary (DER, PKCS#12), not PEM; for DER: `{convert} -in OLD -out NEW`")
            }
            _ => format!("holds no PEM section, which begins with -----BEGIN {label}-----"),
        };
        self.problem(&problem)
    }
}

/// Each PEM section with its label. One that is cut off ends where the next begins.
fn sections(text: &str) -> impl Iterator<Item = (&str, &str)> {
    const BEGIN: &str = "-----BEGIN ";
    let starts = text.match_indices(BEGIN).map(|(start, _)| start);
    let ends = starts.clone().skip(1).chain([text.len()]);
    starts.zip(ends).filter_map(|(start, end)| {
        let section = text.get(start..end)?;
        Some((section.get(BEGIN.len()..)?.split_once("-----")?.0, section))
    })
}
