//! TLS by rustls with the ring provider.

use std::path::Path;
use std::sync::Arc;

use derp_kv_core::Result;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{ValkeyConfig, field};

/// Builds the TLS side of a connection from the files that `config` names.
///
/// The provider is passed in by hand: a process-wide default may be missing, or be another one.
pub(crate) fn client_config(config: &ValkeyConfig) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| field("use_tls", "TLS is not available").with_source(error))?
        .with_root_certificates(roots(config)?);
    let tls = match (&config.client_cert_file, &config.client_key_file) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates("client_cert_file", cert)?, private_key(key)?)
            .map_err(|error| {
                field("client_key_file", "does not fit the certificate of client_cert_file")
                    .with_source(error)
            })?,
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(tls))
}

fn roots(config: &ValkeyConfig) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.ca_file {
        for certificate in certificates("ca_file", path)? {
            roots.add(certificate).map_err(|error| {
                field("ca_file", format_args!("{} holds no usable authority", path.display()))
                    .with_source(error)
            })?;
        }
        return Ok(roots);
    }
    // One unreadable certificate among the system's must not stop the others from being used.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(field("use_tls", "the system has no root certificates; set ca_file"));
    }
    Ok(roots)
}

fn certificates(name: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(name, path, error))?;
    if certificates.is_empty() {
        return Err(field(name, format_args!("{} holds no PEM certificate", path.display())));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        PemError::NoItemsFound => {
            field("client_key_file", format_args!("{} holds no PEM private key", path.display()))
        }
        error => unreadable("client_key_file", path, error),
    })
}

fn unreadable(name: &str, path: &Path, error: PemError) -> derp_kv_core::Error {
    match error {
        PemError::Io(error) => {
            field(name, format_args!("cannot read {}", path.display())).with_source(error)
        }
        // Its text may quote the file.
        _ => field(name, format_args!("{} is not a valid PEM file", path.display())),
    }
}
